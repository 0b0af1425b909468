import { expect, test } from 'vitest'
import { costOf, costOfBest, criterionOf, valueIn } from './criterion.ts'

const result = { loss: 2, perplexity: 7, tokenAccuracy: 0.5, metrics: { rougeL: 0.3 } }

test('the direction is that of the metric, unless another is asked for', () => {
  expect(criterionOf({})).toMatchObject({ name: 'loss', greaterIsBetter: false })
  expect(criterionOf({ metricForBestModel: 'rougeL' })).toMatchObject({ what: 'ROUGE-L', greaterIsBetter: true })
  const turned = criterionOf({ metricForBestModel: 'rougeL', greaterIsBetter: false })
  expect([costOf(turned, 0.3), costOf(criterionOf({ metricForBestModel: 'rougeL' }), 0.3)]).toEqual([0.3, -0.3])
})

test('an evaluation has the value, or none, which is never the best', () => {
  const rouge = criterionOf({ metricForBestModel: 'rougeL' })
  expect(valueIn(rouge, result)).toBe(0.3)
  const missing = costOf(rouge, valueIn(rouge, { ...result, metrics: {} }))
  expect(missing < costOfBest(rouge, undefined)).toBe(false)
})

test('what was the best by another number does not compare', () => {
  const rouge = criterionOf({ metricForBestModel: 'rougeL' })
  const best = { step: 1, loss: 2, metric: { name: 'rougeL', value: 0.3 } }
  expect(costOfBest(rouge, best)).toBe(-0.3)
  expect(costOfBest(rouge, { step: 1, loss: 2 })).toBe(Infinity)
  expect(costOfBest(criterionOf({}), { step: 1, loss: 2 })).toBe(2)
  expect(costOfBest(criterionOf({}), best)).toBe(Infinity)
})
