import { expect, test } from 'vitest'
import { bytesToF32 } from '../util/dtype.ts'
import { addChange, noChange, stored, totalOf } from './rounding.ts'

const place = { name: 'w', first: 100 }

test('what is stored is rounded to nearest, and refused where it is too large', () => {
  const values = Float32Array.of(1, 1 + 2 ** -9, -65504)
  expect([...bytesToF32(stored(values, 'F16', place), 'F16')]).toEqual([1, 1 + 2 ** -9, -65504])
  expect([...bytesToF32(stored(values, 'BF16', place), 'BF16')]).toEqual([1, 1, -65536])
  expect(() => stored(Float32Array.of(1, 65520), 'F16', place)).toThrow(
    'dtype: element 101 of w is 65520, too large for F16',
  )
  expect(() => stored(Float32Array.of(3.4e38), 'BF16', place)).toThrow('element 100 of w')
})

test('a change that rounding takes back is counted', () => {
  // Of numbers from 1 to 2, bf16 has those in steps of 1/128.
  const before = Float32Array.of(1, 1, 1, 1)
  const after = Float32Array.of(1, 1 + 1 / 512, 1 + 1 / 128, 1 + 1 / 128 + 1 / 512)
  const sums = noChange()
  addChange(sums, { before, after }, { bytes: stored(after, 'BF16', place), dtype: 'BF16' })
  expect(sums).toMatchObject({ elements: 4, changed: 3, lost: 1, before: 4 })
  expect(sums.delta).toBeCloseTo((1 + 16 + 25) / 512 ** 2, 12)
  expect(sums.rounding).toBeCloseTo(2 / 512 ** 2, 12)
  const exact = noChange()
  addChange(exact, { before, after }, { bytes: stored(after, 'F32', place), dtype: 'F32' })
  expect(exact).toMatchObject({ changed: 3, lost: 0, rounding: 0 })
  expect(totalOf([sums, exact])).toMatchObject({ elements: 8, changed: 6, lost: 1, before: 8 })
})
