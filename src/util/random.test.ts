import { describe, expect, it } from 'vitest'
import { fillDropoutMask, fillNormal, fillUniform, philox, shuffled, stream, uniform } from './random.ts'

const mean = (values: Iterable<number>): number => {
  let sum = 0
  let count = 0
  for (const value of values) {
    sum += value
    count++
  }
  return sum / count
}

describe('philox', () => {
  // Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
  it.each([
    [
      [0, 0],
      [0, 0, 0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0xa4093822, 0x299f31d0],
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ] as const)('key %j counter %j', (key, counter, expected) => {
    const out = new Uint32Array(4)
    philox(key, counter, out)
    expect([...out]).toEqual([...expected])
  })
})

describe('stream', () => {
  it('is a function of its arguments', () => {
    expect(stream(42, 'dropout', 1, 2, 3)).toEqual(stream(42, 'dropout', 1, 2, 3))
  })

  it('differs when anything differs', () => {
    const streams = [
      stream(0, 'a'),
      stream(1, 'a'),
      stream(2 ** 32, 'a'),
      stream(-1, 'a'),
      stream(0, 'b'),
      stream(0, ''),
      stream(0, 'a', 0),
      stream(0, 'a', 0, 0),
      stream(0, 'a', 1, 0),
      stream(0, 'a', 0, 1),
      stream(0, 'a', 2 ** 32),
      stream(0, 'a\0'),
    ]
    expect(new Set(streams.map((s) => JSON.stringify(s))).size).toBe(streams.length)
  })

  it('gives the bytes it gave when this test was written', () => {
    expect(stream(7, 'shuffle', 3)).toEqual({ key: [513733573, 3739873206], counter: [4286571264, 832432549] })
    expect([...shuffled(8, stream(7, 'shuffle', 3))]).toEqual([6, 0, 7, 1, 3, 5, 2, 4])
    const mask = new Uint8Array(16)
    fillDropoutMask(mask, 0.25, stream(7, 'dropout', 0))
    expect(mask.join('')).toBe('1111011111010100')
  })
})

it('uniform numbers are in [0, 1), spread evenly, and do not depend on how many are asked for', () => {
  const values = uniform(stream(1, 'u'), 100_003)
  expect(Math.min(...values.subarray(0, 50_000))).toBeGreaterThanOrEqual(0)
  expect(Math.max(...values.subarray(0, 50_000))).toBeLessThan(1)
  expect(mean(values)).toBeCloseTo(0.5, 2)
  expect(mean(values.map((v) => v * v))).toBeCloseTo(1 / 3, 2)
  expect(uniform(stream(1, 'u'), 5)).toEqual(values.slice(0, 5))
})

it('shuffled is a permutation that puts each number anywhere', () => {
  expect([...shuffled(1000, stream(1, 's'))].sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => i))
  const counts = new Map<string, number>()
  for (let i = 0; i < 6000; i++) {
    const order = shuffled(3, stream(1, 's', i)).join('')
    counts.set(order, (counts.get(order) ?? 0) + 1)
  }
  expect(counts.size).toBe(6)
  for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(120)
})

it('fillUniform and fillNormal have the moments asked for', () => {
  const flat = new Float32Array(100_001)
  fillUniform(flat, -2, 6, stream(3, 'f'))
  expect(mean(flat)).toBeCloseTo(2, 1)
  expect(mean(flat.map((v) => (v - 2) ** 2))).toBeCloseTo(64 / 12, 1)
  expect(flat.every((v) => v >= -2 && v <= 6)).toBe(true)
  const bell = new Float32Array(100_001)
  fillNormal(bell, 1, 0.5, stream(3, 'n'))
  expect(mean(bell)).toBeCloseTo(1, 2)
  expect(mean(bell.map((v) => (v - 1) ** 2))).toBeCloseTo(0.25, 2)
  expect(mean(bell.map((v) => ((v - 1) / 0.5) ** 4))).toBeCloseTo(3, 0)
  expect(bell[100_000]).not.toBe(0)
})

describe('fillDropoutMask', () => {
  it.each([0.01, 0.05, 0.3, 0.5, 0.7, 0.99])('drops a share of %d, independently', (p) => {
    const n = 400_000
    const mask = new Uint8Array(n)
    fillDropoutMask(mask, p, stream(5, 'dropout', Math.round(p * 100)))
    const tolerance = 4 * Math.sqrt((p * (1 - p)) / n)
    expect(Math.abs(mean(mask) - (1 - p))).toBeLessThan(tolerance)
    // Neighbours: both dropped with p * p, at distances 1 and 7.
    for (const distance of [1, 7]) {
      let both = 0
      for (let i = distance; i < n; i++) if (mask[i] === 0 && mask[i - distance] === 0) both++
      const share = p * p
      expect(Math.abs(both / n - share)).toBeLessThan(6 * Math.sqrt((share * (1 - share)) / n))
    }
  })

  it('keeps all at 0 and none at 1, the first element included in what can be dropped', () => {
    const mask = new Uint8Array(100)
    fillDropoutMask(mask, 0, stream(5, 'x'))
    expect(mask.every((v) => v === 1)).toBe(true)
    fillDropoutMask(mask, 1, stream(5, 'x'))
    expect(mask.every((v) => v === 0)).toBe(true)
    let first = 0
    for (let i = 0; i < 2000; i++) {
      fillDropoutMask(mask.subarray(0, 1), 0.25, stream(5, 'first', i))
      first += mask[0]!
    }
    expect(Math.abs(first / 2000 - 0.75)).toBeLessThan(0.04)
  })
})
