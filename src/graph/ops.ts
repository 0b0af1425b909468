import { internalError } from '../util/errors.ts'
import type { Builder } from './build.ts'
import { broadcast, product, sameShape, type Dim, type Shape } from './dims.ts'
import { emitShape, type Emitter } from './emitter.ts'
import { lastDim, showType, type OpAttributes, type OpName, type TensorType, type Value } from './value.ts'

export interface VjpContext<A> {
  readonly attributes: A
  readonly inputs: readonly Value[]
  readonly outputs: readonly Value[]
}

/** The reverse-mode rule: gradients of the inputs, given those of the outputs (undefined: not needed, or none). */
type Vjp<A> = (
  b: Builder,
  context: VjpContext<A>,
  grad: Value,
  ...moreGrads: readonly (Value | undefined)[]
) => readonly (Value | undefined)[]

export interface OpDefinition<A> {
  /** Types of the outputs; throws when the inputs do not fit. */
  readonly infer: (inputs: readonly TensorType[], attributes: A) => readonly TensorType[]
  /** `discrete`: no gradient can exist, and asking for one is an error. Gradients may be of any shape that broadcasting made; `grad.ts` sums them. */
  readonly vjp: Vjp<A> | 'discrete'
  readonly emit: (e: Emitter, attributes: A) => void
  /** Never computed a second time in a backward program that may keep its result instead. */
  readonly dear?: true
}

const f32 = (shape: Shape): TensorType => ({ dtype: 'f32', shape })

function need(condition: boolean, op: OpName, inputs: readonly TensorType[]): void {
  if (!condition) throw internalError(`${op} of ${inputs.map(showType).join(', ')}`)
}

function elementwise(op: OpName): OpDefinition<unknown>['infer'] {
  return (inputs) => {
    const [a, b] = pair(inputs)
    const shape = broadcast(a.shape, b.shape)
    need(shape !== undefined && a.dtype === 'f32' && b.dtype === 'f32', op, inputs)
    return [f32(shape ?? [])]
  }
}

function pair<T>(items: readonly T[]): readonly [T, T] {
  const [a, b] = items
  if (a === undefined || b === undefined) throw internalError('an op without its two operands')
  return [a, b]
}

function single<T>(items: readonly T[]): T {
  const [item] = items
  if (item === undefined) throw internalError('an op without its operand')
  return item
}

const sameAsFirst: OpDefinition<unknown>['infer'] = (inputs) => [single(inputs)]
const plain = (type: string) => (e: Emitter) => e.node(type, e.inputs, e.outputs)

function matmulShape(a: Shape, b: Shape, transA: boolean, transB: boolean): Shape | undefined {
  const [m, k] = transA ? [a.at(-1), a.at(-2)] : [a.at(-2), a.at(-1)]
  const [k2, n] = transB ? [b.at(-1), b.at(-2)] : [b.at(-2), b.at(-1)]
  const batch = broadcast(a.slice(0, -2), b.slice(0, -2))
  if (batch === undefined || m === undefined || n === undefined || k !== k2) return undefined
  return [...batch, m, n]
}

/**
 * Every op, with its shape rule, gradient rule and ONNX form, closed: an op without one of the three is a compile error.
 * Reference for the emitted ops: onnx.ai/onnx/operators and ContribOperators.md of ONNX Runtime.
 */
export const ops: { readonly [K in OpName]: OpDefinition<OpAttributes[K]> } = {
  /** A tensor that is fed. Its type is given by `b.input`. */
  input: { infer: () => [], vjp: () => [], emit: () => {} },

  /** A float scalar. */
  constant: {
    infer: () => [f32([])],
    vjp: () => [],
    emit: (e, { value }) => e.node('Identity', [e.float(value)], e.outputs),
  },

  add: { infer: elementwise('add'), vjp: (_b, _c, dy) => [dy, dy], emit: plain('Add') },
  sub: { infer: elementwise('sub'), vjp: (b, _c, dy) => [dy, b.scale(dy, -1)], emit: plain('Sub') },
  mul: {
    infer: elementwise('mul'),
    vjp: (b, { inputs }, dy) => {
      const [x, y] = pair(inputs)
      return [b.mul(dy, y), b.mul(dy, x)]
    },
    emit: plain('Mul'),
  },
  exp: { infer: sameAsFirst, vjp: (b, { outputs }, dy) => [b.mul(dy, single(outputs))], emit: plain('Exp') },
  sigmoid: {
    infer: sameAsFirst,
    vjp: (b, { outputs }, dy) => {
      const y = single(outputs)
      return [b.mul(dy, b.mul(y, b.sub(b.constant(1), y)))]
    },
    emit: plain('Sigmoid'),
  },
  /** x sigmoid(x). */
  silu: {
    infer: sameAsFirst,
    vjp: (b, { inputs, outputs }, dy) => {
      const y = single(outputs)
      const slope = b.add(y, b.mul(b.sigmoid(single(inputs)), b.sub(b.constant(1), y)))
      return [b.mul(dy, slope)]
    },
    emit: (e) => e.contrib('QuickGelu', e.inputs, e.outputs, { alpha: { float: 1 } }),
  },
  /** Over the last axis. */
  softmax: {
    infer: sameAsFirst,
    vjp: (b, { outputs }, dy) => {
      const y = single(outputs)
      const weighted = b.mul(dy, y)
      return [b.sub(weighted, b.mul(y, b.sumLast(weighted)))]
    },
    emit: (e) => e.node('Softmax', e.inputs, e.outputs, { axis: -1 }),
  },
  /** (x [..., n], weight [n]) -> (x r weight, r [..., 1]) with r = 1 / sqrt(mean(x^2) + epsilon). Zhang and Sennrich 2019. */
  rmsNorm: {
    infer: (inputs) => {
      const [x, weight] = pair(inputs)
      need(weight.shape.length === 1 && weight.shape[0] === lastDim(x), 'rmsNorm', inputs)
      return [x, f32([...x.shape.slice(0, -1), 1])]
    },
    vjp: (b, { inputs, outputs }, dy, dr) => {
      if (dr !== undefined) throw internalError('rmsNorm: 1/rms has no gradient rule')
      const [x, weight] = pair(inputs)
      const [, r] = pair(outputs)
      const width = Number(lastDim(x.type))
      const dn = b.mul(dy, weight)
      const along = b.scale(b.mul(b.sumLast(b.mul(dn, x)), b.mul(r, b.mul(r, r))), 1 / width)
      return [b.sub(b.mul(dn, r), b.mul(x, along)), b.mul(dy, b.mul(x, r))]
    },
    emit: (e, { epsilon }) =>
      e.node('SimplifiedLayerNormalization', e.inputs, e.outputs, {
        axis: -1,
        epsilon: { float: epsilon },
        stash_type: 1,
      }),
  },
  /**
   * (x [batch, seq, heads*d], cos [.., seq, d/2], sin) -> x with each head's two halves rotated. Su et al. 2021; the
   * half-split layout of hub checkpoints. Its transpose is the rotation by the opposite angle.
   */
  rope: {
    infer: (inputs, { heads }) => {
      const [x, cos, sin] = inputs
      if (x === undefined || cos === undefined || sin === undefined) throw internalError('rope of fewer than 3 inputs')
      need(sameShape(cos.shape, sin.shape) && lastDim(x) === 2 * heads * Number(lastDim(cos)), 'rope', inputs)
      return [x]
    },
    vjp: (b, { inputs, attributes }, dy) => {
      const [, cos, sin] = inputs
      if (cos === undefined || sin === undefined) throw internalError('rope of fewer than 3 inputs')
      return [b.rope(dy, cos, b.scale(sin, -1), attributes.heads), undefined, undefined]
    },
    emit: (e, { heads }) => e.node('RotaryEmbedding', e.inputs, e.outputs, { num_heads: heads, interleaved: 0 }),
  },
  /**
   * (x [..., k], weight) -> x weightT with weight [n, k] as checkpoints store it (`transposed`), or x weight with weight
   * [k, n]. The one op of every weight product, so that its lowering is chosen in one place.
   */
  linear: {
    dear: true,
    infer: (inputs, { transposed }) => {
      const [x, w] = pair(inputs)
      const [n, k] = transposed ? pair(w.shape) : [w.shape[1], w.shape[0]]
      need(w.shape.length === 2 && lastDim(x) === k && n !== undefined, 'linear', inputs)
      return [f32([...x.shape.slice(0, -1), n ?? 0])]
    },
    vjp: (b, { inputs, attributes: { transposed } }, dy) => {
      const [x, w] = pair(inputs)
      const [dyRows, xRows] = [b.rows(dy), b.rows(x)]
      const dw = transposed ? b.matmul(dyRows, xRows, { transA: true }) : b.matmul(xRows, dyRows, { transA: true })
      return [b.linear(dy, w, { transposed: !transposed }), dw]
    },
    emit: (e, { transposed }) => {
      if (transposed) e.contrib('FusedMatMul', e.inputs, e.outputs, { transB: 1 })
      else e.node('MatMul', e.inputs, e.outputs)
    },
  },
  /** alpha a b, batched over the leading dimensions, either operand transposed in its last two. */
  matmul: {
    infer: (inputs, { transA, transB }) => {
      const [a, b] = pair(inputs)
      const shape = matmulShape(a.shape, b.shape, transA, transB)
      need(shape !== undefined, 'matmul', inputs)
      return [f32(shape ?? [])]
    },
    vjp: (b, { inputs, attributes: { transA, transB, alpha } }, dy) => {
      const [x, y] = pair(inputs)
      const dx = transA
        ? b.matmul(y, dy, { transA: transB, transB: true, alpha })
        : b.matmul(dy, y, { transB: !transB, alpha })
      const dyy = transB
        ? b.matmul(dy, x, { transA: true, transB: transA, alpha })
        : b.matmul(x, dy, { transA: !transA, alpha })
      return [dx, dyy]
    },
    emit: (e, { transA, transB, alpha }) => {
      if (!transA && !transB && alpha === 1) e.node('MatMul', e.inputs, e.outputs)
      else
        e.contrib('FusedMatMul', e.inputs, e.outputs, {
          transA: Number(transA),
          transB: Number(transB),
          alpha: { float: alpha },
        })
    },
  },
  reshape: {
    infer: (inputs, { shape }) => {
      const x = single(inputs)
      need(product(x.shape) === product(shape), 'reshape', inputs)
      return [{ dtype: x.dtype, shape }]
    },
    vjp: (b, { inputs }, dy) => [b.reshape(dy, single(inputs).type.shape)],
    emit: (e, { shape }) => {
      const x = single(e.inputs)
      e.node('Reshape', [x, emitShape(e, x, single(e.inputTypes).shape, shape)], e.outputs)
    },
  },
  transpose: {
    infer: (inputs, { permutation }) => {
      const { dtype, shape } = single(inputs)
      need(permutation.length === shape.length, 'transpose', inputs)
      return [{ dtype, shape: permutation.map((axis): Dim => shape[axis] ?? 0) }]
    },
    vjp: (b, { attributes: { permutation } }, dy) => {
      const inverse = permutation.map((_, axis) => permutation.indexOf(axis))
      return [b.transpose(dy, inverse)]
    },
    emit: (e, { permutation }) => e.node('Transpose', e.inputs, e.outputs, { perm: permutation }),
  },
  /** (x, sizes i64 [n]) -> x cut along an axis into n parts of these sizes. */
  split: {
    infer: (inputs, { axis, parts }) => {
      const { dtype, shape } = single(inputs)
      return parts.map((part) => ({ dtype, shape: shape.map((dim, i) => (i === axis ? part : dim)) }))
    },
    vjp: (b, { inputs, outputs, attributes: { axis } }, ...grads) => {
      const [x, sizes] = pair(inputs)
      const whole = outputs.map((output, i) => grads[i] ?? b.expandLike(b.constant(0), output))
      return [b.concat(whole, sizes, { axis, whole: x.type.shape[axis] ?? 0 }), undefined]
    },
    emit: (e, { axis }) => e.node('Split', e.inputs, e.outputs, { axis }),
  },
  /** (sizes i64 [n], n parts) -> the parts joined along an axis of which they have `sizes`: the inverse of `split`. */
  concat: {
    infer: (inputs, { axis, whole }) => {
      const [, ...parts] = inputs
      const others = (type: TensorType): Shape => type.shape.filter((_, i) => i !== axis)
      const first = single(parts)
      need(
        parts.every((part) => sameShape(others(part), others(first))),
        'concat',
        inputs,
      )
      return [f32(first.shape.map((dim, i) => (i === axis ? whole : dim)))]
    },
    vjp: (b, { inputs, attributes: { axis } }, dy) => {
      const [sizes, ...parts] = inputs
      if (sizes === undefined) throw internalError('concat without its sizes')
      return [undefined, ...b.split(dy, sizes, { axis, parts: parts.map((part) => part.type.shape[axis] ?? 0) })]
    },
    emit: (e, { axis }) => e.node('Concat', e.inputs.slice(1), e.outputs, { axis }),
  },
  /** Keeps the summed axes as 1. */
  reduceSum: {
    infer: (inputs, { axes }) => {
      const { shape } = single(inputs)
      return [f32(shape.map((dim, axis) => (axes.includes(axis) ? 1 : dim)))]
    },
    vjp: (b, { inputs }, dy) => [b.expandLike(dy, single(inputs))],
    emit: (e, { axes }) => e.node('ReduceSum', [single(e.inputs), e.ints(axes)], e.outputs, { keepdims: 1 }),
  },
  /** (x, like) -> x broadcast to the shape of `like`, whose values do not matter. */
  expandLike: {
    infer: (inputs) => {
      const [x, like] = pair(inputs)
      const shape = broadcast(x.shape, like.shape)
      need(shape !== undefined && sameShape(shape, like.shape), 'expandLike', inputs)
      return [f32(like.shape)]
    },
    vjp: (_b, _c, dy) => [dy, undefined],
    emit: (e) => {
      const [x, like] = pair(e.inputs)
      const shape = e.temporary()
      e.node('Shape', [like], [shape])
      e.node('Expand', [x, shape], e.outputs)
    },
  },
  /** (logits [n, v], targets i64 [n]) -> (-log p(target) [n], log p [n, v]), in nats. */
  crossEntropy: {
    infer: (inputs) => {
      const [logits, targets] = pair(inputs)
      need(logits.shape.length === 2 && sameShape(targets.shape, logits.shape.slice(0, 1)), 'crossEntropy', inputs)
      return [f32(targets.shape), logits]
    },
    vjp: (b, { inputs, outputs }, dy, dLogProbabilities) => {
      if (dLogProbabilities !== undefined) throw internalError('crossEntropy: log p has no gradient rule')
      const [, targets] = pair(inputs)
      const [, logProbabilities] = pair(outputs)
      const error = b.addAt(b.exp(logProbabilities), targets, -1)
      return [b.mul(error, b.column(dy)), undefined]
    },
    emit: (e) => {
      const [logits, targets] = pair(e.inputs)
      const [losses, logProbabilities] = pair(e.outputs)
      const [column, picked, row] = [e.temporary(), e.temporary(), e.temporary()]
      e.node('LogSoftmax', [logits], [logProbabilities], { axis: -1 })
      e.node('Unsqueeze', [targets, e.ints([1])], [column])
      e.node('GatherElements', [logProbabilities, column], [picked], { axis: 1 })
      e.node('Squeeze', [picked, e.ints([1])], [row])
      e.node('Neg', [row], [losses])
    },
  },
  /** (x [n, v], columns i64 [n]) -> x with `value` added at [i, columns[i]] of every row i. */
  addAt: {
    infer: (inputs) => {
      const [x, columns] = pair(inputs)
      need(x.shape.length === 2 && sameShape(columns.shape, x.shape.slice(0, 1)), 'addAt', inputs)
      return [x]
    },
    vjp: (_b, _c, dy) => [dy, undefined],
    emit: (e, { value }) => {
      const [x, columns] = pair(e.inputs)
      const [column, shape, updates] = [e.temporary(), e.temporary(), e.temporary()]
      e.node('Unsqueeze', [columns, e.ints([1])], [column])
      e.node('Shape', [column], [shape])
      e.node('Expand', [e.float(value), shape], [updates])
      e.node('ScatterElements', [x, column, updates], e.outputs, { axis: 1, reduction: 'add' })
    },
  },
  /** Index of the largest element of the last axis. */
  argmax: {
    infer: (inputs) => [{ dtype: 'i64', shape: single(inputs).shape.slice(0, -1) }],
    vjp: 'discrete',
    emit: (e) => e.node('ArgMax', e.inputs, e.outputs, { axis: -1, keepdims: 0 }),
  },
  /** bf16 or f16 bits in u16 -> f32, exactly. */
  decode: {
    infer: (inputs) => {
      const { dtype, shape } = single(inputs)
      need(dtype === 'u16', 'decode', inputs)
      return [f32(shape)]
    },
    vjp: 'discrete',
    emit: (e, { format }) => {
      const bits = e.temporary()
      e.node('BitCast', e.inputs, [bits], { to: format === 'bf16' ? 16 : 10 })
      e.node('Cast', [bits], e.outputs, { to: 1 })
    },
  },
  /** u8 -> f32. */
  toFloat: {
    infer: (inputs) => [f32(single(inputs).shape)],
    vjp: 'discrete',
    emit: (e) => e.node('Cast', e.inputs, e.outputs, { to: 1 }),
  },
}
