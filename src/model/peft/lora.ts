import { b } from '../../graph/build.ts'
import { lastDim, type Value } from '../../graph/value.ts'
import type { Layers, LinearPart } from '../decoder.ts'
import { splitLast, type StageLayers } from '../layers.ts'

/** What LoRA adds to one linear layer. */
export interface LoraModule {
  readonly r: number
  /** alpha / r, or alpha / sqrt(r) with rank stabilization. */
  readonly scale: number
  /** Probability with which an element of the adapter's input is dropped; 0 outside training. */
  readonly dropout: number
}

/**
 * The same layers with low-rank adapters: y = W x + scale B A dropout(x), A [r, in], B [out, r]. Hu et al. 2021. `adapterOf` says which
 * modules (named as in the stage) have one.
 */
export function withLora(stage: StageLayers, adapterOf: (module: string) => LoraModule | undefined): Layers {
  const matrices = (part: LinearPart, { r }: LoraModule, x: Value): { readonly a: Value; readonly up: Value } => ({
    a: stage.parameter(`${part.module}.lora_A.weight`, [r, Number(lastDim(x.type))]),
    up: stage.parameter(`${part.module}.lora_B.weight`, [part.outFeatures, r]),
  })
  /** `low`: scale A x, where it was made already. */
  const adapted = (y: Value, x: Value, part: LinearPart, low?: Value): Value => {
    const adapter = adapterOf(part.module)
    if (adapter === undefined) return y
    const { scale, dropout } = adapter
    const { a, up } = matrices(part, adapter, x)
    const input = dropout > 0 ? stage.drop(part.module, x, dropout) : x
    // Inverted dropout divides by 1 - p; here that is part of the scale, on the small tensor.
    return b.add(y, b.linear(low ?? b.scale(b.linear(input, a), scale / (1 - dropout)), up))
  }
  /** scale A x of all adapters that read x as it is, as one product with the rows of all A: that reads x, and its gradient is added up, once. */
  const lowsOf = (x: Value, parts: readonly LinearPart[]): ReadonlyMap<LinearPart, Value> => {
    const joint = parts.flatMap((part) => {
      const adapter = adapterOf(part.module)
      return adapter === undefined || adapter.dropout > 0 ? [] : [{ part, ...adapter, ...matrices(part, adapter, x) }]
    })
    const [first, ...others] = joint
    if (first === undefined || others.length === 0) return new Map()
    const ranks = joint.map(({ r }) => r)
    const whole = ranks.reduce((total, r) => total + r, 0)
    const all = joint.map(({ a }) => a)
    const low = b.linear(x, b.concat(all, b.integers(ranks), { axis: 0, whole }))
    const alike = others.every(({ scale }) => scale === first.scale)
    const lows = splitLast(alike ? b.scale(low, first.scale) : low, ranks)
    return new Map(joint.map(({ part, scale }, i) => [part, alike ? lows[i]! : b.scale(lows[i]!, scale)]))
  }
  return {
    parameter: (name, shape) => stage.parameter(name, shape),
    linear: (module, x, options) => adapted(stage.linear(module, x, options), x, { module, ...options }),
    linearsOf: (x, parts) => {
      const results = stage.linearsOf(x, parts)
      const lows = lowsOf(x, parts)
      return parts.map((part, i) => adapted(results[i]!, x, part, lows.get(part)))
    },
  }
}

/** An adapter whose matrices are fed anew with each run: A [rank, in] and B transposed, [rank, out], with the ranks of several side by side. */
export interface FedAdapter {
  readonly a: Value
  readonly b: Value
}

/**
 * The same layers with adapters that each run chooses, row by row. `scalesFor(x)` are the factors of the low-rank values of x, [.., rank]:
 * for each row the scale of its own adapter, and 0 for the ranks of the others.
 */
export function withFedAdapters(
  stage: StageLayers,
  adapterOf: (
    module: string,
    shape: { readonly inFeatures: number; readonly outFeatures: number },
  ) => FedAdapter | undefined,
  scalesFor: (x: Value) => Value,
): Layers {
  const adapted = (y: Value, x: Value, { module, outFeatures }: { module: string; outFeatures: number }): Value => {
    const adapter = adapterOf(module, { inFeatures: Number(lastDim(x.type)), outFeatures })
    if (adapter === undefined) return y
    const low = b.mul(b.linear(x, adapter.a), scalesFor(x))
    return b.add(y, b.linear(low, adapter.b, { transposed: false }))
  }
  return {
    parameter: (name, shape) => stage.parameter(name, shape),
    linear: (module, x, options) => adapted(stage.linear(module, x, options), x, { module, ...options }),
    linearsOf: (x, parts) => stage.linearsOf(x, parts).map((y, i) => adapted(y, x, parts[i]!)),
  }
}
