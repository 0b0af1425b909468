import { internalError } from '../../util/errors.ts'
import { sameShape } from '../dims.ts'
import { lastDim } from '../value.ts'
import { f32, need, pair, single, type OpDefinitions } from './definition.ts'

/** The loss and what it is measured with. */
export const loss = {
  /**
   * (logits [n, v], targets i64 [n]) -> (loss [n], log p [n, v]), in nats. The loss is -log p(target); with `smoothing` s it is
   * -(1 - s) log p(target) - s mean(log p): the label is 1 - s on the target and s spread evenly. Szegedy et al. 2016, section 7.
   */
  crossEntropy: {
    memory: 'own',
    infer: (inputs) => {
      const [logits, targets] = pair(inputs)
      need(logits.shape.length === 2 && sameShape(targets.shape, logits.shape.slice(0, 1)), 'crossEntropy', inputs)
      return [f32(targets.shape), logits]
    },
    vjp: (b, { inputs, outputs, attributes: { smoothing } }, dy, dLogProbabilities) => {
      if (dLogProbabilities !== undefined) throw internalError('crossEntropy: log p has no gradient rule')
      const [logits, targets] = pair(inputs)
      const [, logProbabilities] = pair(outputs)
      const error = b.addAt(b.exp(logProbabilities), targets, smoothing - 1)
      const spread = smoothing / Number(lastDim(logits.type))
      return [b.mul(smoothing === 0 ? error : b.sub(error, b.constant(spread)), b.column(dy)), undefined]
    },
    emit: (e, { smoothing }) => {
      const [logits, targets] = pair(e.inputs)
      const [losses, logProbabilities] = pair(e.outputs)
      const [column, picked, row] = [e.temporary(), e.temporary(), e.temporary()]
      e.node('LogSoftmax', [logits], [logProbabilities], { axis: -1 })
      e.node('Unsqueeze', [targets, e.ints([1])], [column])
      e.node('GatherElements', [logProbabilities, column], [picked], { axis: 1 })
      e.node('Squeeze', [picked, e.ints([1])], [row])
      if (smoothing === 0) {
        e.node('Neg', [row], [losses])
        return
      }
      const [mean, certain, spread] = [e.temporary(), e.temporary(), e.temporary()]
      e.node('ReduceMean', [logProbabilities, e.ints([1])], [mean], { keepdims: 0 })
      e.node('Mul', [row, e.float(smoothing - 1)], [certain])
      e.node('Mul', [mean, e.float(smoothing)], [spread])
      e.node('Sub', [certain, spread], [losses])
    },
  },
  /** (x [n, v], columns i64 [n]) -> x with `value` added at [i, columns[i]] of every row i. */
  addAt: {
    memory: 'own',
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
    memory: 'own',
    infer: (inputs) => [{ dtype: 'i64', shape: single(inputs).shape.slice(0, -1) }],
    vjp: 'discrete',
    emit: (e) => e.node('ArgMax', e.inputs, e.outputs, { axis: -1, keepdims: 0 }),
  },
} satisfies Partial<OpDefinitions>
