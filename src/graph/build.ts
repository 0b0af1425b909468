import { internalError } from '../util/errors.ts'
import type { Builder } from './builder.ts'
import { broadcast, product, sameShape } from './dims.ts'
import { ops } from './ops/index.ts'
import {
  isConstant,
  lastDim,
  only,
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

/** See `Builder`. */
export const b: Builder = {
  input: (name, type) => only(makeNode('input', { name }, [], [type])),
  constant: (value) => only(makeNode('constant', { value }, [])),
  integers: (values) => only(makeNode('integers', { values }, [])),
  add: (x, y) => only(makeNode('add', {}, [x, y])),
  sub: (x, y) => only(makeNode('sub', {}, [x, y])),
  mul: (x, y) => {
    if (isConstant(x, 1)) return y
    if (isConstant(y, 1)) return x
    return only(makeNode('mul', {}, [x, y]))
  },
  scale: (x, factor) => b.mul(x, b.constant(factor)),
  exp: (x) => only(makeNode('exp', {}, [x])),
  sigmoid: (x) => only(makeNode('sigmoid', {}, [x])),
  tanh: (x) => only(makeNode('tanh', {}, [x])),
  silu: (x) => only(makeNode('silu', {}, [x])),
  gated: (gate, up, activation) => only(makeNode('gated', { activation }, [gate, up])),
  softmax: (x) => only(makeNode('softmax', {}, [x])),
  rmsNorm: (x, weight, epsilon) => two(makeNode('rmsNorm', { epsilon }, [x, weight]))[0],
  rope: (x, cos, sin, heads) => {
    const channels = 2 * Number(lastDim(cos.type))
    const attributes = channels * heads === lastDim(x.type) ? { heads } : { heads, channels }
    return only(makeNode('rope', attributes, [x, cos, sin]))
  },
  linear: (x, weight, { transposed = true } = {}) => only(makeNode('linear', { transposed }, [x, weight])),
  matmul: (x, y, { transA = false, transB = false, alpha = 1 } = {}) =>
    only(makeNode('matmul', { transA, transB, alpha }, [x, y])),
  reshape: (x, shape) => {
    if (sameShape(x.type.shape, shape) || isConstant(x)) return x
    return only(makeNode('reshape', { shape }, [x]))
  },
  transpose: (x, permutation) => only(makeNode('transpose', { permutation }, [x])),
  split: (x, sizes, attributes) => makeNode('split', attributes, [x, sizes]),
  concat: (parts, sizes, attributes) => only(makeNode('concat', attributes, [sizes, ...parts])),
  repeat: (x, attributes) => (attributes.times === 1 ? x : only(makeNode('repeat', attributes, [x]))),
  reduceSum: (x, axes) => (axes.length === 0 ? x : only(makeNode('reduceSum', { axes }, [x]))),
  expandLike: (x, like) => (sameShape(x.type.shape, like.type.shape) ? x : only(makeNode('expandLike', {}, [x, like]))),
  crossEntropy: (logits, targets, { smoothing = 0 } = {}) =>
    two(makeNode('crossEntropy', { smoothing }, [logits, targets])),
  addAt: (x, columns, value) => only(makeNode('addAt', { value }, [x, columns])),
  takeRows: (x, rows) => only(makeNode('takeRows', {}, [x, rows])),
  putRows: (y, rows, like) => only(makeNode('putRows', {}, [y, rows, like])),
  argmax: (x) => only(makeNode('argmax', {}, [x])),
  decode: (x, format, { again = false } = {}) => only(makeNode('decode', { format, again }, [x])),
  fourBitWeight: (codes, scales, attributes) => only(makeNode('fourBitWeight', attributes, [codes, scales])),
  nBitWeight: (codes, scales, attributes) => only(makeNode('nBitWeight', attributes, [codes, scales])),
  slicedWeight: (scales, slices, attributes) => only(makeNode('slicedWeight', attributes, [scales, ...slices])),
  toFloat: (x) => only(makeNode('toFloat', {}, [x])),
  sixBits: (codes, scales) => only(makeNode('sixBits', {}, [codes, scales])),

  softCap: (x, cap) => b.scale(b.tanh(b.scale(x, 1 / cap)), cap),
  sumLast: (x) => b.reduceSum(x, [x.type.shape.length - 1]),
  rows: (x) => b.reshape(x, [product(x.type.shape.slice(0, -1)), lastDim(x.type)]),
  column: (x) => b.reshape(x, [...x.type.shape, 1]),
  sumTo: (x, shape) => {
    const from = x.type.shape
    if (sameShape(from, shape) || isConstant(x)) return x
    const wide = broadcast(from, shape)
    if (wide === undefined || !sameShape(wide, from)) throw internalError('a gradient that fits no input')
    const extra = from.length - shape.length
    const axes = from.map((_, axis) => axis).filter((axis) => axis < extra || shape[axis - extra] !== from[axis])
    return b.reshape(b.reduceSum(x, axes), shape)
  },
}
