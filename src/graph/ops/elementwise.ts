import { internalError } from '../../util/errors.ts'
import { broadcast, sameShape } from '../dims.ts'
import { lastDim } from '../value.ts'
import { f32, need, pair, plain, sameAsFirst, single, type OpDefinition, type OpDefinitions } from './definition.ts'

function binary(op: 'add' | 'sub' | 'mul'): OpDefinition<unknown>['infer'] {
  return (inputs) => {
    const [a, b] = pair(inputs)
    const shape = broadcast(a.shape, b.shape)
    need(shape !== undefined && a.dtype === 'f32' && b.dtype === 'f32', op, inputs)
    return [f32(shape ?? [])]
  }
}

/** Sources, and operations element by element or along one axis. */
export const elementwise = {
  /** A tensor that is fed. Its type is given by `b.input`. */
  input: { memory: 'free', infer: () => [], vjp: () => [], emit: () => {} },
  /** A float scalar. */
  constant: {
    memory: 'free',
    infer: () => [f32([])],
    vjp: () => [],
    emit: (e, { value }) => e.passOn(e.float(value)),
  },
  /** i64 [n]. */
  integers: {
    memory: 'free',
    infer: (_, { values }) => [{ dtype: 'i64', shape: [values.length] }],
    vjp: () => [],
    emit: (e, { values }) => e.passOn(e.ints(values)),
  },
  add: { memory: 'own', infer: binary('add'), vjp: (_b, _c, dy) => [dy, dy], emit: plain('Add') },
  sub: { memory: 'own', infer: binary('sub'), vjp: (b, _c, dy) => [dy, b.scale(dy, -1)], emit: plain('Sub') },
  mul: {
    memory: 'own',
    infer: binary('mul'),
    vjp: (b, { inputs }, dy) => {
      const [x, y] = pair(inputs)
      return [b.mul(dy, y), b.mul(dy, x)]
    },
    emit: plain('Mul'),
  },
  exp: {
    memory: 'own',
    infer: sameAsFirst,
    vjp: (b, { outputs }, dy) => [b.mul(dy, single(outputs))],
    emit: plain('Exp'),
  },
  sigmoid: {
    memory: 'own',
    infer: sameAsFirst,
    vjp: (b, { outputs }, dy) => {
      const y = single(outputs)
      return [b.mul(dy, b.mul(y, b.sub(b.constant(1), y)))]
    },
    emit: plain('Sigmoid'),
  },
  tanh: {
    memory: 'own',
    infer: sameAsFirst,
    vjp: (b, { outputs }, dy) => {
      const y = single(outputs)
      return [b.mul(dy, b.sub(b.constant(1), b.mul(y, y)))]
    },
    emit: plain('Tanh'),
  },
  /** x sigmoid(x). */
  silu: {
    memory: 'own',
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
    memory: 'own',
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
    memory: 'own',
    // One number a row: with it, a gradient that does not read the first needs no norm.
    expensive: [1],
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
   * (x [batch, seq, heads*d], cos [.., seq, c/2], sin) -> x with the two halves of the first c channels of each head rotated. Su et al.
   * 2021; the half-split layout of hub checkpoints. Its transpose is the rotation by the opposite angle.
   */
  rope: {
    memory: 'own',
    infer: (inputs, { heads, channels }) => {
      const [x, cos, sin] = inputs
      if (x === undefined || cos === undefined || sin === undefined) throw internalError('rope of fewer than 3 inputs')
      const width = Number(lastDim(x)) / heads
      const rotated = channels ?? width
      const fits = sameShape(cos.shape, sin.shape) && 2 * Number(lastDim(cos)) === rotated && rotated <= width
      need(fits && Number.isInteger(width), 'rope', inputs)
      return [x]
    },
    vjp: (b, { inputs, attributes }, dy) => {
      const [, cos, sin] = inputs
      if (cos === undefined || sin === undefined) throw internalError('rope of fewer than 3 inputs')
      return [b.rope(dy, cos, b.scale(sin, -1), attributes.heads), undefined, undefined]
    },
    emit: (e, { heads, channels = 0 }) =>
      e.node('RotaryEmbedding', e.inputs, e.outputs, {
        num_heads: heads,
        interleaved: 0,
        ...(channels === 0 ? {} : { rotary_embedding_dim: channels }),
      }),
  },
  /** Keeps the summed axes as 1. */
  reduceSum: {
    memory: 'own',
    infer: (inputs, { axes }) => {
      const { shape } = single(inputs)
      return [f32(shape.map((dim, axis) => (axes.includes(axis) ? 1 : dim)))]
    },
    vjp: (b, { inputs }, dy) => [b.expandLike(dy, single(inputs))],
    emit: (e, { axes }) => e.node('ReduceSum', [single(e.inputs), e.ints(axes)], e.outputs, { keepdims: 1 }),
  },
  /** (x, like) -> x broadcast to the shape of `like`, whose values do not matter. */
  expandLike: {
    memory: 'own',
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
} satisfies Partial<OpDefinitions>
