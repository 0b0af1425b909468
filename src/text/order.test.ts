import { expect, it } from 'vitest'
import type { Example } from './example.ts'
import { epochOrder } from './order.ts'

const examples: Example[] = Array.from({ length: 1043 }, (_, i) => {
  const length = 5 + ((i * 37) % 211)
  return { ids: new Int32Array(length), labelMask: new Uint8Array(length).fill(1), line: i + 1 }
})
const options = { examples, seed: 3, perStep: 8, groupByLength: true }
const lengths = (order: Int32Array): number[] => Array.from(order, (i) => examples[i]!.ids.length)
const steps = (order: Int32Array): number[][] =>
  Array.from({ length: Math.ceil(order.length / 8) }, (_, i) => lengths(order.subarray(8 * i, 8 * i + 8)))
const spread = (step: readonly number[]): number => Math.max(...step) - Math.min(...step)
const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length

it('takes each example once an epoch', () => {
  for (const groupByLength of [true, false]) {
    const order = epochOrder({ ...options, groupByLength }, 2)
    expect([...order].sort((a, b) => a - b)).toEqual(examples.map((_, i) => i))
  }
})

it('groups similar lengths into steps, which come in a random order', () => {
  const random = steps(epochOrder({ ...options, groupByLength: false }, 0)).slice(0, -1)
  const grouped = steps(epochOrder(options, 0)).slice(0, -1)
  expect(mean(random.map(spread))).toBeGreaterThan(100)
  expect(mean(grouped.map(spread))).toBeLessThan(12)
  const firsts = grouped.map((step) => step[0]!)
  expect(firsts).not.toEqual(firsts.toSorted((a, b) => b - a))
  // Neighbours are no more alike than steps far apart.
  const apart = (by: number): number => mean(firsts.slice(by).map((first, i) => Math.abs(first - firsts[i]!)))
  expect(apart(1)).toBeGreaterThan(0.6 * apart(30))
})

it('is a function of seed and epoch, whatever was asked before', () => {
  const first = [...epochOrder(options, 0)]
  const second = [...epochOrder(options, 1)]
  expect(second).not.toEqual(first)
  expect([...epochOrder({ ...options, seed: 4 }, 0)]).not.toEqual(first)
  expect([...epochOrder({ ...options, perStep: 16 }, 0)]).not.toEqual(first)
  expect([...epochOrder(options, 0)]).toEqual(first)
  // Another array of the same examples knows nothing of the first.
  expect([...epochOrder({ ...options, examples: [...examples] }, 1)]).toEqual(second)
})
