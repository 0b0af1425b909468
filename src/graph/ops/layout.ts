import { internalError } from '../../util/errors.ts'
import { product, sameShape, showShape, type Dim, type Shape } from '../dims.ts'
import type { Emitter } from '../emitter.ts'
import { lastDim, type TensorType } from '../value.ts'
import { f32, made, need, pair, single, type OpDefinitions } from './definition.ts'

/** Operations that move elements and compute nothing. */
export const layout = {
  reshape: {
    memory: 'view',
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
    memory: 'own',
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
    memory: 'own',
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
    memory: 'own',
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
  /** x, `times` times one after the other along an axis. */
  repeat: {
    memory: 'own',
    infer: (inputs, { axis, times }) => {
      const { dtype, shape } = single(inputs)
      return [{ dtype, shape: shape.map((dim, i) => (i === axis ? product([dim, times]) : dim)) }]
    },
    vjp: (b, { inputs, attributes: { axis, times } }, dy) => {
      const { shape } = single(inputs).type
      const apart = b.reshape(dy, [...shape.slice(0, axis), times, ...shape.slice(axis)])
      return [b.reshape(b.reduceSum(apart, [axis]), shape)]
    },
    emit: (e, { axis, times }) =>
      e.node(
        'Concat',
        Array.from({ length: times }, () => single(e.inputs)),
        e.outputs,
        { axis },
      ),
  },
  /** (x [..., w], flat rows i64 [m]) -> those rows of x, [m, w]. No row may be taken twice: gradients are put, not added. */
  takeRows: {
    memory: 'own',
    infer: (inputs) => {
      const [x, rows] = pair(inputs)
      need(rows.dtype === 'i64' && rows.shape.length === 1, 'takeRows', inputs)
      return [f32([...rows.shape, lastDim(x)])]
    },
    vjp: (b, { inputs }, dy) => {
      const [x, rows] = pair(inputs)
      return [b.putRows(dy, rows, x), undefined]
    },
    emit: (e) => {
      const [x, rows] = pair(e.inputs)
      const flat = e.temporary()
      e.node('Reshape', [x, e.ints([-1, Number(lastDim(pair(e.inputTypes)[0]))])], [flat])
      e.node('Gather', [flat, rows], e.outputs, { axis: 0 })
    },
  },
  /** (y [m, w], flat rows i64 [m], like [..., w]) -> zeros like `like`, with y at those rows. The values of `like` do not matter. */
  putRows: {
    memory: { scratch: 1 },
    infer: (inputs) => {
      const [y, rows] = pair(inputs)
      const like = inputs[2] ?? y
      need(sameShape(y.shape, [...rows.shape, lastDim(like)]), 'putRows', inputs)
      return [like]
    },
    vjp: (b, { inputs }, dy) => [b.takeRows(dy, pair(inputs)[1]), undefined, undefined],
    emit: (e) => {
      const [y = '', rows = '', like = ''] = e.inputs
      const [shape, zeros, flat, column, put] = [
        e.temporary(),
        e.temporary(),
        e.temporary(),
        e.temporary(),
        e.temporary(),
      ]
      e.node('Shape', [like], [shape])
      e.node('Expand', [e.float(0), shape], [zeros])
      e.node('Reshape', [zeros, e.ints([-1, Number(lastDim(single(e.inputTypes)))])], [flat])
      e.node('Unsqueeze', [rows, e.ints([1])], [column])
      e.node('ScatterND', [flat, column, y], [put])
      e.node('Reshape', [put, shape], e.outputs)
    },
  },
} satisfies Partial<OpDefinitions>

/**
 * The shape operand of an ONNX Reshape of x: 0 copies the dimension at the same place, one -1 is worked out at run time, and a
 * dimension that x has at another place is read from its shape.
 */
function emitShape(e: Emitter, x: string, from: Shape, to: Shape): string {
  const simple = to.map((dim, i) => (typeof dim === 'number' ? dim : dim === from[i] ? 0 : -1))
  const unknown = (target: readonly number[]): number => target.filter((dim) => dim === -1).length
  if (unknown(simple) <= 1) return e.ints(simple)
  const sources = to.map((dim, i) => (simple[i] === -1 ? from.indexOf(dim) : -1))
  if (unknown(simple.map((dim, i) => (sources[i] === -1 ? dim : 1))) > 1) {
    throw internalError(`reshape ${showShape(from)} to ${showShape(to)}: more than one dimension to work out`)
  }
  // A dimension is the same in the whole program, and so is a shape of them.
  const parts = simple.map((dim, i) => {
    const source = sources[i] ?? -1
    if (source === -1) return e.ints([dim])
    const [part = ''] = e.once(`dimension ${to[i]}`, () => [made(e, 'Shape', [x], { start: source, end: source + 1 })])
    return part
  })
  const [target = ''] = e.once(`shape ${parts.join(' ')}`, () => [made(e, 'Concat', parts, { axis: 0 })])
  return target
}
