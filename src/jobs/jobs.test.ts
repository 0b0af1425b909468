import { describe, expect, test } from 'vitest'
import { methodNames, methodOf, parseTrainConfig, rateFor, withMethod } from '../config/index.ts'
import { rungsOf, survivors } from './halving.ts'
import { differenceOf } from './noise.ts'

describe('the noise of a difference', () => {
  const seeds = (losses: readonly number[]) => losses.map((evalLoss, seed) => ({ seed, evalLoss }))

  test('over seeds: paired, by Student’s t', () => {
    const found = differenceOf(seeds([1.1, 1.2, 1.6]), seeds([1, 1, 1.3]))
    // Differences 0.1, 0.2, 0.3: deviation 0.1, and t of two degrees of freedom.
    expect(found?.loss).toBeCloseTo(0.2, 12)
    expect(found?.noise).toBeCloseTo((4.303 * 0.1) / Math.sqrt(3), 12)
    expect(found?.over).toBe('seeds')
  })

  test('over examples with one seed: what all have in common is no noise', () => {
    const one = {
      seed: 1,
      evalLoss: 2,
      exampleLosses: [
        [4, 2],
        [8, 4],
        [2, 1],
      ] as [number, number][],
    }
    const shifted = {
      ...one,
      evalLoss: 1,
      exampleLosses: [
        [2, 2],
        [4, 4],
        [1, 1],
      ] as [number, number][],
    }
    expect(differenceOf([one], [shifted])).toEqual({ loss: 1, noise: 0, over: 'examples' })
    const other = {
      ...one,
      exampleLosses: [
        [2, 2],
        [4, 4],
        [4, 1],
      ] as [number, number][],
    }
    // Rests of 2, 4 and -2 around a mean of 4 / 7 a token.
    const rests = [2, 4, -2].map((difference, i) => difference - (4 / 7) * [2, 4, 1][i]!)
    const error = Math.sqrt(1.5 * rests.reduce((sum, rest) => sum + rest * rest, 0)) / 7
    expect(differenceOf([one], [other])?.noise).toBeCloseTo(1.96 * error, 12)
  })

  test('unknown with one seed and no examples', () => {
    expect(differenceOf(seeds([1]), seeds([2]))).toBeUndefined()
  })
})

test('trials are judged at multiples of the first rung, and one is left in the end', () => {
  expect(rungsOf(200, 12)).toEqual([22, 66, 200])
  expect(rungsOf(200, 3)).toEqual([66, 200])
  expect(rungsOf(200, 1)).toEqual([200])
  expect(rungsOf(2, 12)).toEqual([2])
  expect(survivors(12, { isNextLast: false })).toBe(4)
  expect(survivors(4, { isNextLast: true })).toBe(1)
})

test('each method of a configuration is what it is called, at its own rate', () => {
  const config = parseTrainConfig({
    model: 'm',
    train: 't',
    valid: 'v',
    outputDir: 'o',
    r: 16,
    loraAlpha: 32,
    learningRate: 3e-3,
  })
  for (const name of methodNames) expect(methodOf(withMethod(config, name))).toBe(name)
  expect(withMethod(config, 'qlora-fp4', { r: 8 })).toMatchObject({ r: 8, loraAlpha: 16, bnb4bitQuantType: 'fp4' })
  // From one method to another, nothing of the first stays.
  const again = withMethod(withMethod(config, 'qlora-8bit'), 'lora')
  expect(again).toEqual(withMethod(config, 'lora'))
  expect([rateFor(config, 'lora'), rateFor(config, 'qlora'), rateFor(config, 'full')]).toEqual([3e-3, 3e-3, 5e-5])
})
