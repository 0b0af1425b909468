import { internalError } from '../util/errors.ts'
import { showShape, type Dim, type Shape } from './dims.ts'

/** Element types. `bf16` and `f16` tensors enter a program as `u16` (their bits) and are decoded inside. */
export type DType = 'f32' | 'i64' | 'i8' | 'u8' | 'u16'

export interface TensorType {
  readonly dtype: DType
  readonly shape: Shape
}

/** The attributes of every op; the one list of op names. What each op means is in `ops.ts`. */
export interface OpAttributes {
  input: { readonly name: string }
  constant: { readonly value: number }
  integers: { readonly values: readonly number[] }
  add: NoAttributes
  sub: NoAttributes
  mul: NoAttributes
  exp: NoAttributes
  sigmoid: NoAttributes
  tanh: NoAttributes
  silu: NoAttributes
  gated: { readonly activation: Activation }
  softmax: NoAttributes
  rmsNorm: { readonly epsilon: number }
  /** `channels`: how many of each head are rotated, the first ones; all when left out. */
  rope: { readonly heads: number; readonly channels?: number }
  linear: { readonly transposed: boolean }
  matmul: { readonly transA: boolean; readonly transB: boolean; readonly alpha: number }
  reshape: { readonly shape: Shape }
  transpose: { readonly permutation: readonly number[] }
  split: { readonly axis: number; readonly parts: readonly Dim[] }
  concat: { readonly axis: number; readonly whole: Dim }
  repeat: { readonly axis: number; readonly times: number }
  reduceSum: { readonly axes: readonly number[] }
  expandLike: NoAttributes
  crossEntropy: { readonly smoothing: number }
  addAt: { readonly value: number }
  takeRows: NoAttributes
  putRows: NoAttributes
  argmax: NoAttributes
  /** `again`: the gradient of a product decodes it again, so that the f32 form of a large weight need not live from one to the other. */
  decode: { readonly format: 'bf16' | 'f16'; readonly again: boolean }
  toFloat: NoAttributes
  sixBits: NoAttributes
  fourBitWeight: FourBitAttributes
  nBitWeight: NBitAttributes
  slicedWeight: SliceAttributes
}

/** Functions between a layer and the next, element by element; `gelu_tanh` is the approximation of `gelu` by a tanh. */
export type Activation = 'silu' | 'gelu' | 'gelu_tanh'

/** A weight [rows, columns] in 4 bits, as bitsandbytes packs it. */
export interface FourBitAttributes {
  readonly quantType: 'nf4' | 'fp4'
  /** Consecutive elements of the flat weight that share a scale. */
  readonly blockSize: number
  readonly rows: number
  readonly columns: number
}

/** A weight [rows, columns] in integers of 8 or 4 bits. */
export interface NBitAttributes {
  readonly bits: 8 | 4
  /** Consecutive elements of a row that share a scale. */
  readonly blockSize: number
  readonly rows: number
  readonly columns: number
}

/** A weight [rows, columns] as integers of 8 bits: `high`, and `low` where there is one, in one order of its elements or in both. */
export interface SliceAttributes {
  readonly rows: number
  readonly columns: number
  readonly low: boolean
  readonly orders: 1 | 2
}

type NoAttributes = Readonly<Record<never, never>>
export type OpName = keyof OpAttributes

/** One operation of a program. Nodes are immutable and know their inputs only, so a program is a set of end points. */
export interface Node<K extends OpName = OpName> {
  readonly op: K
  readonly attributes: OpAttributes[K]
  readonly inputs: readonly Value[]
  readonly outputs: readonly Value[]
}

/** A symbolic tensor: one output of a node. Holds a shape, never data. */
export interface Value {
  readonly node: Node
  readonly index: number
  readonly type: TensorType
}

/** The first output of a node made by `makeNode`, for the ops that have one. */
export function only(outputs: readonly Value[]): Value {
  const [value] = outputs
  if (value === undefined) throw internalError('a node without outputs')
  return value
}

export function showType(type: TensorType): string {
  return `${type.dtype}${showShape(type.shape)}`
}

export function isConstant(value: Value, number?: number): boolean {
  if (value.node.op !== 'constant') return false
  return number === undefined || (value.node as Node<'constant'>).attributes.value === number
}

/** The last dimension of a type, which must be a number for the ops that ask. */
export function lastDim(type: TensorType): Dim {
  const dim = type.shape.at(-1)
  if (dim === undefined) throw internalError('a scalar has no last dimension')
  return dim
}

/** Values in an order in which each comes after what it is made of. Stops at `boundary`: those count as given. */
export function topological(ends: readonly Value[], boundary: ReadonlySet<Value>): Node[] {
  const order: Node[] = []
  const state = new Map<Node, 'open' | 'done'>()
  const visit = (value: Value): void => {
    if (boundary.has(value)) return
    const { node } = value
    const seen = state.get(node)
    if (seen === 'done') return
    if (seen === 'open') throw internalError(`a cycle through ${node.op}`)
    state.set(node, 'open')
    for (const input of node.inputs) visit(input)
    state.set(node, 'done')
    order.push(node)
  }
  for (const end of ends) visit(end)
  return order
}
