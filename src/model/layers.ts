import { b } from '../graph/build.ts'
import type { Shape } from '../graph/dims.ts'
import { lastDim, type Value } from '../graph/value.ts'
import { internalError } from '../util/errors.ts'
import type { Storage } from '../storage/stored.ts'
import type { Layers } from './decoder.ts'
import { storedValue, type StoredValue } from './stored-values.ts'

/** A weight that a stage reads. */
export interface StageParameter extends StoredValue {
  /** Name within the stage. */
  readonly port: string
  /** Name in the whole model, as in the checkpoint. */
  readonly name: string
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

  linear(
    module: string,
    x: Value,
    { outFeatures, bias }: { readonly outFeatures: number; readonly bias: boolean },
  ): Value {
    const inFeatures = Number(lastDim(x.type))
    const { slices, outputScale } = this.#parameter(`${module}.weight`, [outFeatures, inFeatures])
    const products = slices.map((slice) => b.linear(x, slice))
    const product = joined(products, outFeatures)
    const y = outputScale === undefined ? product : b.mul(product, outputScale)
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

/** The results of slices of a weight, side by side. */
function joined(products: readonly Value[], outFeatures: number): Value {
  const [first] = products
  if (first === undefined) throw internalError('a weight without slices')
  if (products.length === 1) return first
  const widths = products.map((product) => Number(lastDim(product.type)))
  return b.concat(products, b.integers(widths), { axis: first.type.shape.length - 1, whole: outFeatures })
}
