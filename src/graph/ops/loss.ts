import { internalError } from '../../util/errors.ts'
import { sameShape } from '../dims.ts'
import { f32, need, pair, single, type OpDefinitions } from './definition.ts'

/** The loss and what it is measured with. */
export const loss: OpDefinitions<'crossEntropy' | 'addAt' | 'argmax'> = {
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
}
