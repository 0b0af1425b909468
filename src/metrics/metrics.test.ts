import { describe, expect, test } from 'vitest'
import { schemaCheck } from './json-schema.ts'
import {
  type Answer,
  type MetricName,
  metricNames,
  metricOf,
  metricText,
  metricValues,
  valueNamed,
  valueOf,
} from './index.ts'

// The numbers themselves are compared with those of Python packages in test/golden/metrics.test.ts.

const settings = { labels: ['yes', 'no'], isValid: (value: unknown) => typeof value === 'object' }

describe.each(metricNames)('%s', (name: MetricName) => {
  const metric = metricOf(name)
  const answer = (expected: string, given: string): Answer => ({
    prompt: 'p',
    expected,
    completion: given,
    predicted: given,
  })
  const [right, wrong] = [answer('yes', 'yes'), answer('no', 'maybe')]

  test('comes to its values, all of them finite, of one answer and of several', () => {
    const keys = Object.keys(metric.values)
    for (const answers of [[right], [wrong], [right, wrong]]) {
      const found = metric.over(answers, settings)
      expect(Object.keys(found)).toEqual(keys)
      for (const value of Object.values(found)) expect(Number.isFinite(value)).toBe(true)
    }
    expect(Object.keys(metric.of?.(right, settings) ?? metric.values)).toEqual(keys)
    for (const key of keys) expect(metricValues[key]).toMatchObject({ of: name, ...metric.values[key] })
  })

  test('is the better the more answers are right', () => {
    const json = { prompt: 'p', expected: '{}', completion: '{}', predicted: 'yes' }
    const long = answer('one two three four five', 'one two three four five')
    const good = name === 'json' ? json : metric.needs === 'label' ? right : long
    const [best, worst] = [metric.over([good], settings), metric.over([wrong], settings)]
    for (const [key, { greaterIsBetter }] of Object.entries(metric.values)) {
      expect(greaterIsBetter ? best[key]! > worst[key]! : best[key]! < worst[key]!).toBe(true)
    }
  })
})

test('values are found by the names that transformers and options have for them', () => {
  const names = [
    'eval_rougeL',
    'rougeL',
    'rouge-l',
    'eval_exact_match',
    'exact-match',
    'macroF1',
    'eval_macro_f1',
    'eval_loss',
    'token_accuracy',
  ]
  const found = [
    'rougeL',
    'rougeL',
    'rougeL',
    'exactMatch',
    'exactMatch',
    'macroF1',
    'macroF1',
    'loss',
    'tokenAccuracy',
  ]
  expect(names.map(valueNamed)).toEqual(found)
  expect(['', 'eval_', 'meteor', 'rouge', 'constructor'].map(valueNamed)).toEqual(Array(5).fill(undefined))
  // No two values go by one name.
  const keys = Object.keys(metricValues)
  expect(keys.map(valueNamed)).toEqual(keys)
})

test('an evaluation has the values that it was asked for', () => {
  const result = { loss: 1, perplexity: 2, tokenAccuracy: 0.5, metrics: { bleu: 12.345, rougeL: 0.25 } }
  expect(['loss', 'bleu', 'accuracy', 'metrics'].map((name) => valueOf(result, name))).toEqual([
    1,
    12.345,
    undefined,
    undefined,
  ])
  expect([metricText('bleu', 12.345), metricText('rougeL', 0.25), metricText('custom', 3)]).toEqual([
    '12.35',
    '25.0 %',
    '3.0000',
  ])
})

describe('a JSON Schema', () => {
  const point = { type: 'object', properties: { x: { type: 'number' } }, required: ['x'], additionalProperties: false }

  test.each([
    undefined,
    'http://json-schema.org/draft-07/schema#',
    'https://json-schema.org/draft/2019-09/schema',
    'https://json-schema.org/draft/2020-12/schema',
  ])('of %s', ($schema) => {
    const isValid = schemaCheck({ ...($schema === undefined ? {} : { $schema }), ...point })
    const values = [{ x: 1 }, { x: '1' }, {}, { x: 1, y: 2 }, [], null]
    expect(values.map(isValid)).toEqual([true, false, false, false, false, false])
  })

  test('has what its draft has', () => {
    const draft7 = schemaCheck({ $schema: 'http://json-schema.org/draft-07/schema#', items: [{ type: 'string' }] })
    const latest = schemaCheck({ prefixItems: [{ type: 'string' }] })
    expect([draft7(['a']), draft7([1]), latest(['a']), latest([1])]).toEqual([true, false, true, false])
    expect(schemaCheck({ format: 'email', 'x-of-mine': 1 })('none')).toBe(true)
  })

  test('is refused where it is none, or refers to others', () => {
    expect(() => schemaCheck({ type: 'objekt' })).toThrow(/schema is invalid/)
    expect(() => schemaCheck({ $ref: 'https://example.org/other.json' })).toThrow(/resolve reference/)
  })
})
