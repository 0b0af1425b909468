import { expect, test } from 'vitest'
import { smooth, smoothingWindow, thin } from './curves.ts'

const steps = (length: number): number[] => Array.from({ length }, (_, index) => index + 1)

test('a short curve stays as it is, to six digits', () => {
  expect(thin([1, 2, 3], [0.123456789, NaN, 3e-9])).toEqual({ x: [1, 2, 3], y: [0.123457, null, 3e-9] })
  expect(thin([], [])).toEqual({ x: [], y: [] })
})

test('of a long one, spikes, gaps and both ends stay', () => {
  const values = steps(100_000).map((step) => Math.sin(step / 1000))
  values[0] = 5
  values[77_777] = 40
  values[33_333] = -40
  values[44_444] = NaN
  values[99_999] = 7
  const { x, y } = thin(steps(100_000), values, 2000)
  expect(x.length).toBeLessThanOrEqual(2001)
  expect(x.length).toBeGreaterThan(1000)
  const at = (step: number): number | null | undefined => y[x.indexOf(step)]
  expect([at(1), at(77_778), at(33_334), at(44_445), at(100_000)]).toEqual([5, 40, -40, null, 7])
  expect(x).toEqual([...x].sort((a, b) => a - b))
  expect(new Set(x).size).toBe(x.length)
})

test('gaps only', () => {
  const { y } = thin(steps(5000), new Array<number>(5000).fill(NaN), 100)
  expect(new Set(y)).toEqual(new Set([null]))
})

test('smoothing: a constant stays, the first value counts in full, gaps stay gaps', () => {
  expect(smooth([3, 3, 3], 10)).toEqual([3, 3, 3].map((value) => expect.closeTo(value, 12) as number))
  // weight 2 / (3 + 1) = 1/2: 4, (4/4 + 8/2) / (3/4), then the gap, then on
  const [first, second, third, fourth] = smooth([4, 8, NaN, 0], 3)
  expect([first, second, third]).toEqual([4, expect.closeTo(20 / 3, 12), NaN])
  expect(fourth).toBeCloseTo((4 / 8 + 8 / 4) / (7 / 8), 12)
})

test('the window grows with the run, and short runs are not smoothed', () => {
  expect([10, 40, 400, 100_000].map(smoothingWindow)).toEqual([0, 1, 10, 2500])
})
