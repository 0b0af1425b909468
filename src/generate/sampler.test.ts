import { expect, test } from 'vitest'
import type { SamplingOptions } from './processors.ts'
import { Sampler } from './sampler.ts'

const logits = (): Float32Array => Float32Array.of(1, 0.5, 3, -2, 2.5, 0)

function taken(options: SamplingOptions, { seed = 1, row = 0, count = 1 } = {}): number[] {
  const sampler = new Sampler(options, { seed, row })
  const made: number[] = []
  for (let i = 0; i < count; i++) made.push(sampler.take(logits(), { prompt: [], made }).id)
  return made
}

test('the likeliest token is taken, of equal ones the first', () => {
  expect(taken({ doSample: false })).toEqual([2])
  const equal = new Sampler({ doSample: false }, { seed: 1, row: 0 })
  expect(equal.take(Float32Array.of(-1, 4, 4), { prompt: [], made: [] }).id).toBe(1)
})

test('tokens are drawn as often as their probabilities say', () => {
  const count = 20_000
  const weights = [...logits()].map((one) => Math.exp(one / 0.8))
  const total = weights.reduce((sum, one) => sum + one, 0)
  const found = taken({ doSample: true, temperature: 0.8 }, { count })
  weights.forEach((weight, id) => {
    const [expected, seen] = [(count * weight) / total, found.filter((one) => one === id).length]
    // Five standard deviations.
    expect(Math.abs(seen - expected), `token ${id}`).toBeLessThan(5 * Math.sqrt(expected))
  })
})

test('what was taken out is never drawn', () => {
  expect(new Set(taken({ doSample: true, topK: 2 }, { count: 500 }))).toEqual(new Set([2, 4]))
})

test('seed and row decide what is drawn', () => {
  const draw = { doSample: true } as const
  expect(taken(draw, { count: 40 })).toEqual(taken(draw, { count: 40 }))
  expect(taken(draw, { count: 40, seed: 2 })).not.toEqual(taken(draw, { count: 40 }))
  expect(taken(draw, { count: 40, row: 1 })).not.toEqual(taken(draw, { count: 40 }))
})

test('chances are those of the model, whatever is changed', () => {
  const sampler = new Sampler({ doSample: true, topK: 1, temperature: 0.1 }, { seed: 1, row: 0, logprobs: 3 })
  const total = [...logits()].reduce((sum, one) => sum + Math.exp(one), 0)
  const { id, logprob, top } = sampler.take(logits(), { prompt: [2], made: [] })
  expect(id).toBe(2)
  expect(logprob).toBeCloseTo(3 - Math.log(total), 6)
  expect(top.map((one) => one.id)).toEqual([2, 4, 0])
  expect(top[1]!.logprob).toBeCloseTo(2.5 - Math.log(total), 6)
})

test.each([NaN, Infinity, -Infinity])('a logit of %s is said to be none', (value) => {
  for (const doSample of [true, false]) {
    const sampler = new Sampler({ doSample }, { seed: 1, row: 0 })
    for (const values of [[1, value, 2], [value, 0], [value]]) {
      if (value === -Infinity && values.some(Number.isFinite)) continue
      expect(() => sampler.take(Float32Array.from(values), { prompt: [], made: [] })).toThrow(
        'logits of the next token are not finite',
      )
    }
  }
})
