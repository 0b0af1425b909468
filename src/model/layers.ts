import { b } from '../graph/build.ts'
import type { Shape } from '../graph/dims.ts'
import { lastDim, type DType, type Value } from '../graph/value.ts'
import { internalError } from '../util/errors.ts'
import { fedBlockSize, type Storage } from '../storage/stored.ts'
import type { Layers } from './decoder.ts'

/**
 * What of a stored weight is fed: its elements, the scales of its blocks or rows, or (where a packed weight is multiplied from the other
 * side) all of it unpacked to f32.
 */
export type WeightPart = 'data' | 'scales' | 'unpacked'

export interface WeightInput {
  readonly port: string
  readonly part: WeightPart
  /** Which rows of the weight, where it is fed in slices: from `start` up to `end`. */
  readonly rows?: { readonly start: number; readonly end: number }
  readonly value: Value
}

/** A weight that a stage reads. */
export interface StageParameter {
  /** Name within the stage. */
  readonly port: string
  /** Name in the whole model, as in the checkpoint. */
  readonly name: string
  readonly shape: readonly number[]
  readonly storage: Storage
  readonly trainable: boolean
  /** What may be fed for it; a program takes what it needs. */
  readonly inputs: readonly WeightInput[]
  /** Its f32 value, in slices of rows where it is large and not stored in f32; of rows in 8 bits, the value before it is scaled. */
  readonly slices: readonly Value[]
  /** By what the result of a product is multiplied, f32 [outFeatures], where rows are stored in 8 bits. */
  readonly outputScale: Value | undefined
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
  readonly #policy: ParameterPolicy
  readonly #rename: (name: string) => string

  /** `prefix` leads from names in the stage to names in the model (`model.layers.3.`). */
  constructor(options: {
    readonly prefix: string
    readonly policy: ParameterPolicy
    /** The stored weight that stands for a named one (a tied head is the embedding). */
    readonly rename?: (name: string) => string
  }) {
    this.#prefix = options.prefix
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

  #parameter(port: string, shape: readonly number[]): StageParameter {
    const known = this.#parameters.get(port)
    if (known !== undefined) return known
    const name = this.#rename(`${this.#prefix}${port}`)
    const trainable = this.#policy.trainable(name)
    const storage = this.#policy.storage(name)
    if (trainable && storage !== 'F32') throw internalError(`${name} is trained but not stored as F32`)
    const parameter = { port, name, shape, storage, trainable, ...weightInputs(port, shape, storage) }
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
    const port = `${module}.dropout`
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

/**
 * Elements of a 16-bit weight that are decoded at once: the f32 form of a large one, which takes three times its own memory with the copy
 * on the way, never exists whole.
 */
const sliceElements = 2 ** 22

/** The inputs that a weight is fed by, and its value in terms of them. */
function weightInputs(
  port: string,
  shape: readonly number[],
  storage: Storage,
): Pick<StageParameter, 'inputs' | 'slices' | 'outputScale'> {
  const input = (part: WeightPart, dtype: DType, dims: readonly number[]): WeightInput => {
    const name = part === 'data' ? port : `${port}.${part}`
    return { port: name, part, value: b.input(name, { dtype, shape: dims }) }
  }
  const [rows = 0, columns = 1] = shape
  if (typeof storage === 'object') {
    const blockSize = fedBlockSize(storage)
    const data = input('data', 'u8', [Math.ceil((rows * columns) / 2)])
    const scales = input('scales', 'f32', [Math.ceil((rows * columns) / blockSize)])
    const { quantType } = storage
    const value = b.fourBitWeight(data.value, scales.value, { quantType, blockSize, rows, columns })
    const unpacked: WeightInput = { port: `${port}.unpacked`, part: 'unpacked', value }
    return { inputs: [data, scales, unpacked], slices: [value], outputScale: undefined }
  }
  if (storage === 'INT8') {
    const [data, scales] = [input('data', 'i8', shape), input('scales', 'f32', [rows])]
    return { inputs: [data, scales], slices: [b.toFloat(data.value)], outputScale: scales.value }
  }
  if (storage === 'F32') {
    const data = input('data', 'f32', shape)
    return { inputs: [data], slices: [data.value], outputScale: undefined }
  }
  const count = Math.min(rows, Math.ceil((rows * columns) / sliceElements))
  const inputs = Array.from({ length: count }, (_, i): WeightInput => {
    if (count === 1) return input('data', 'u16', shape)
    const [start, end] = [Math.floor((i * rows) / count), Math.floor(((i + 1) * rows) / count)]
    const name = `${port}.${i}`
    const value = b.input(name, { dtype: 'u16', shape: [end - start, ...shape.slice(1)] })
    return { port: name, part: 'data', rows: { start, end }, value }
  })
  const format = storage === 'BF16' ? 'bf16' : 'f16'
  return {
    inputs,
    slices: inputs.map(({ value }) => b.decode(value, format, { again: count > 1 })),
    outputScale: undefined,
  }
}
