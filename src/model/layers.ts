import { b } from '../graph/build.ts'
import type { Shape } from '../graph/dims.ts'
import { lastDim, type Value } from '../graph/value.ts'
import { internalError } from '../util/errors.ts'
import { isNBits, type Storage } from '../storage/stored.ts'
import type { Layers, LinearOptions, LinearPart } from './decoder.ts'
import { storedValue, type StoredValue } from './stored-values.ts'

/** A weight that a stage reads. */
export interface StageParameter extends StoredValue {
  /** Name within the stage. */
  readonly port: string
  /** Name in the whole model, as in the checkpoint. */
  readonly name: string
  /** The weights whose rows lie one after the other in it, where it is more than one. */
  readonly joined?: readonly string[]
  readonly shape: readonly number[]
  readonly storage: Storage
  readonly trainable: boolean
}

/** A dropout mask that a stage wants: u8, 1 where an element is kept, of the shape of what it masks. */
export interface StageDropout {
  readonly port: string
  readonly p: number
  readonly shape: Shape
  readonly input: Value
}

/** How the parameters of a run are stored, and which are trained. */
export interface ParameterPolicy {
  storage(name: string): Storage
  trainable(name: string): boolean
}

/** The weights of one stage as symbolic inputs, collected while its computation is written. */
export class StageLayers implements Layers {
  readonly #parameters = new Map<string, StageParameter>()
  readonly #dropouts: StageDropout[] = []
  readonly #prefix: string
  readonly #place: string
  readonly #policy: ParameterPolicy
  readonly #rename: (name: string) => string

  /**
   * `prefix` leads from names in the stage to names in the model (`model.layers.3.`), `place` to its ports, where a program has several
   * stages.
   */
  constructor(options: {
    readonly prefix: string
    readonly place?: string
    readonly policy: ParameterPolicy
    /** The stored weight that stands for a named one (a tied head is the embedding). */
    readonly rename?: (name: string) => string
  }) {
    this.#prefix = options.prefix
    this.#place = options.place ?? ''
    this.#policy = options.policy
    this.#rename = options.rename ?? ((name) => name)
  }

  get parameters(): readonly StageParameter[] {
    return [...this.#parameters.values()]
  }

  get dropouts(): readonly StageDropout[] {
    return this.#dropouts
  }

  parameter(port: string, shape: readonly number[]): Value {
    const { slices, outputScale } = this.#parameter(port, shape)
    const [value] = slices
    if (value === undefined || slices.length > 1 || outputScale !== undefined) {
      throw internalError(`${port} is not stored as a plain tensor, but is not the weight of a product`)
    }
    return value
  }

  #parameter(local: string, shape: readonly number[]): StageParameter {
    const port = this.#place + local
    const known = this.#parameters.get(port)
    if (known !== undefined) return known
    const name = this.#rename(this.#prefix + local)
    const trainable = this.#policy.trainable(name)
    const storage = this.#policy.storage(name)
    if (trainable && storage !== 'F32') throw internalError(`${name} is trained but not stored as F32`)
    const parameter = { port, name, shape, storage, trainable, ...storedValue(port, shape, storage) }
    this.#parameters.set(port, parameter)
    return parameter
  }

  linear(module: string, x: Value, options: LinearOptions): Value {
    const { outFeatures } = options
    const inFeatures = Number(lastDim(x.type))
    const { slices, outputScale } = this.#parameter(`${module}.weight`, [outFeatures, inFeatures])
    const products = slices.map((slice) => b.linear(x, slice))
    const product = joined(products, outFeatures)
    const y = outputScale === undefined ? product : b.mul(product, outputScale)
    return this.#biased(module, y, options)
  }

  /**
   * One product where all weights are integers of as many bits: it rounds x once, and threads meet once. Three products of a token with
   * 192 to 576 rows take 1.3 times as long.
   */
  linearsOf(x: Value, parts: readonly LinearPart[]): readonly Value[] {
    const names = parts.map(({ module }) => this.#rename(`${this.#prefix}${module}.weight`))
    const [storage, ...others] = names.map((name) => this.#policy.storage(name))
    const alike =
      storage !== undefined && isNBits(storage) && others.every((one) => isNBits(one) && one.bits === storage.bits)
    if (parts.length === 1 || !alike) return parts.map(({ module, ...options }) => this.linear(module, x, options))
    const widths = parts.map(({ outFeatures }) => outFeatures)
    const shape = [widths.reduce((total, width) => total + width, 0), Number(lastDim(x.type))]
    const port = this.#place + parts.map(({ module }) => module).join('+')
    const { inputs, slices, outputScale } = storedValue(port, shape, storage)
    const [weight] = slices
    if (weight === undefined) throw internalError(`${port} has no value`)
    const about = { port, name: names[0] ?? '', joined: names, shape, storage, trainable: false }
    this.#parameters.set(port, { ...about, inputs, slices, outputScale })
    const made = splitLast(b.linear(x, weight), widths)
    return parts.map(({ module, ...options }, i) => this.#biased(module, made[i] ?? x, options))
  }

  #biased(module: string, y: Value, { outFeatures, bias }: LinearOptions): Value {
    return bias ? b.add(y, this.parameter(`${module}.bias`, [outFeatures])) : y
  }

  /** x with each element dropped with probability p; not rescaled (the caller folds 1 / (1 - p) in). */
  drop(module: string, x: Value, p: number): Value {
    const port = `${this.#place}${module}.dropout`
    const input = b.input(port, { dtype: 'u8', shape: x.type.shape })
    this.#dropouts.push({ port, p, shape: x.type.shape, input })
    return b.mul(x, b.toFloat(input))
  }
}

/** Parts of the last axis. */
export function splitLast(x: Value, widths: readonly number[]): readonly Value[] {
  return b.split(x, b.integers(widths), { axis: x.type.shape.length - 1, parts: widths })
}

/** The results of slices of a weight, side by side. */
function joined(products: readonly Value[], outFeatures: number): Value {
  const [first] = products
  if (first === undefined) throw internalError('a weight without slices')
  if (products.length === 1) return first
  const widths = products.map((product) => Number(lastDim(product.type)))
  return b.concat(products, b.integers(widths), { axis: first.type.shape.length - 1, whole: outFeatures })
}
