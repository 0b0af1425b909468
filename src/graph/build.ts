import { internalError } from '../util/errors.ts'
import { broadcast, product, sameShape, type Dim, type Shape } from './dims.ts'
import { ops } from './ops.ts'
import {
  isConstant,
  lastDim,
  only,
  type FourBitAttributes,
  type Node,
  type OpAttributes,
  type OpName,
  type TensorType,
  type Value,
} from './value.ts'

function makeNode<K extends OpName>(
  op: K,
  attributes: OpAttributes[K],
  inputs: readonly Value[],
  types: readonly TensorType[] = ops[op].infer(
    inputs.map((input) => input.type),
    attributes,
  ),
): readonly Value[] {
  const outputs: Value[] = []
  const node: Node<K> = { op, attributes, inputs, outputs }
  types.forEach((type, index) => outputs.push({ node, index, type }))
  return outputs
}

function two(outputs: readonly Value[]): readonly [Value, Value] {
  const [first, second] = outputs
  if (first === undefined || second === undefined) throw internalError('an op without its two results')
  return [first, second]
}

interface MatmulOptions {
  readonly transA?: boolean
  readonly transB?: boolean
  readonly alpha?: number
}

/**
 * The functions that programs are written with. Each returns a symbolic tensor; nothing is computed. Products with 1 and
 * the like are dropped here, so that gradients do not pay for them.
 */
export const b = {
  /** A tensor that is fed at run time under this name. */
  input: (name: string, type: TensorType): Value => only(makeNode('input', { name }, [], [type])),
  constant: (value: number): Value => only(makeNode('constant', { value }, [])),
  integers: (values: readonly number[]): Value => only(makeNode('integers', { values }, [])),
  add: (x: Value, y: Value): Value => only(makeNode('add', {}, [x, y])),
  sub: (x: Value, y: Value): Value => only(makeNode('sub', {}, [x, y])),
  mul: (x: Value, y: Value): Value => {
    if (isConstant(x, 1)) return y
    if (isConstant(y, 1)) return x
    return only(makeNode('mul', {}, [x, y]))
  },
  /** x times a number. */
  scale: (x: Value, factor: number): Value => b.mul(x, b.constant(factor)),
  exp: (x: Value): Value => only(makeNode('exp', {}, [x])),
  sigmoid: (x: Value): Value => only(makeNode('sigmoid', {}, [x])),
  silu: (x: Value): Value => only(makeNode('silu', {}, [x])),
  softmax: (x: Value): Value => only(makeNode('softmax', {}, [x])),
  rmsNorm: (x: Value, weight: Value, epsilon: number): Value => two(makeNode('rmsNorm', { epsilon }, [x, weight]))[0],
  rope: (x: Value, cos: Value, sin: Value, heads: number): Value => only(makeNode('rope', { heads }, [x, cos, sin])),
  linear: (x: Value, weight: Value, { transposed = true }: { readonly transposed?: boolean } = {}): Value =>
    only(makeNode('linear', { transposed }, [x, weight])),
  matmul: (x: Value, y: Value, { transA = false, transB = false, alpha = 1 }: MatmulOptions = {}): Value =>
    only(makeNode('matmul', { transA, transB, alpha }, [x, y])),
  reshape: (x: Value, shape: Shape): Value => {
    if (sameShape(x.type.shape, shape) || isConstant(x)) return x
    return only(makeNode('reshape', { shape }, [x]))
  },
  transpose: (x: Value, permutation: readonly number[]): Value => only(makeNode('transpose', { permutation }, [x])),
  /** Parts of x along an axis; `sizes` i64 [n] tells how long they are. */
  split: (
    x: Value,
    sizes: Value,
    attributes: { readonly axis: number; readonly parts: readonly Dim[] },
  ): readonly Value[] => makeNode('split', attributes, [x, sizes]),
  concat: (parts: readonly Value[], sizes: Value, attributes: { readonly axis: number; readonly whole: Dim }): Value =>
    only(makeNode('concat', attributes, [sizes, ...parts])),
  reduceSum: (x: Value, axes: readonly number[]): Value =>
    axes.length === 0 ? x : only(makeNode('reduceSum', { axes }, [x])),
  expandLike: (x: Value, like: Value): Value =>
    sameShape(x.type.shape, like.type.shape) ? x : only(makeNode('expandLike', {}, [x, like])),
  /** Losses [n] in nats and log probabilities [n, v]; `smoothing` is the share of each label that is spread over all v. */
  crossEntropy: (
    logits: Value,
    targets: Value,
    { smoothing = 0 }: { readonly smoothing?: number } = {},
  ): readonly [Value, Value] => two(makeNode('crossEntropy', { smoothing }, [logits, targets])),
  addAt: (x: Value, columns: Value, value: number): Value => only(makeNode('addAt', { value }, [x, columns])),
  takeRows: (x: Value, rows: Value): Value => only(makeNode('takeRows', {}, [x, rows])),
  putRows: (y: Value, rows: Value, like: Value): Value => only(makeNode('putRows', {}, [y, rows, like])),
  argmax: (x: Value): Value => only(makeNode('argmax', {}, [x])),
  decode: (x: Value, format: 'bf16' | 'f16', { again = false }: { readonly again?: boolean } = {}): Value =>
    only(makeNode('decode', { format, again }, [x])),
  /** The weight [rows, columns] that `codes` (two to a byte) and `scales` (one to a block) stand for. */
  fourBitWeight: (codes: Value, scales: Value, attributes: FourBitAttributes): Value =>
    only(makeNode('fourBitWeight', attributes, [codes, scales])),
  toFloat: (x: Value): Value => only(makeNode('toFloat', {}, [x])),

  /** Sum over the last axis, kept as 1. */
  sumLast: (x: Value): Value => b.reduceSum(x, [x.type.shape.length - 1]),
  /** [..., k] as rows [n, k]. */
  rows: (x: Value): Value => b.reshape(x, [product(x.type.shape.slice(0, -1)), lastDim(x.type)]),
  /** [n] as a column [n, 1]. */
  column: (x: Value): Value => b.reshape(x, [...x.type.shape, 1]),
  /** A gradient summed over the axes along which `shape` was broadcast to it. */
  sumTo: (x: Value, shape: Shape): Value => {
    const from = x.type.shape
    if (sameShape(from, shape) || isConstant(x)) return x
    const wide = broadcast(from, shape)
    if (wide === undefined || !sameShape(wide, from)) throw internalError('a gradient that fits no input')
    const extra = from.length - shape.length
    const axes = from.map((_, axis) => axis).filter((axis) => axis < extra || shape[axis - extra] !== from[axis])
    return b.reshape(b.reduceSum(x, axes), shape)
  },
}

export type Builder = typeof b
