import { expect, test } from 'vitest'
import { broadcast, dimValue, elementCount, product, sameShape, showShape, solveDim } from './dims.ts'

test('a product has one canonical form: factor first, then the symbols in order', () => {
  expect(product([])).toBe(1)
  expect(product([2, 3])).toBe(6)
  expect(product(['seq', 'batch'])).toBe('batch*seq')
  expect(product([3, 'seq', 2])).toBe('6*seq')
  expect(product(['2*seq', 'batch', 3])).toBe('6*batch*seq')
  expect(product(['seq', 'seq'])).toBe('seq*seq')
  expect(product([1, 'seq'])).toBe('seq')
  expect(product([0, 'seq'])).toBe(0)
  // However it is put together.
  expect(product([product(['seq', 4]), 'batch'])).toBe(product(['batch', product([4, 'seq'])]))
})

test('a dimension has a value once its symbols have', () => {
  const values = { batch: 2, seq: 5 }
  expect(dimValue(7, {})).toBe(7)
  expect(dimValue('seq', values)).toBe(5)
  expect(dimValue('3*batch*seq', values)).toBe(30)
  expect(() => dimValue('rows', values)).toThrow('internal: dimension "rows" has no value')
})

test('elements are counted', () => {
  expect(elementCount([], {})).toBe(1)
  expect(elementCount(['batch', 3, 'seq'], { batch: 2, seq: 5 })).toBe(30)
  expect(elementCount(['batch', 0], { batch: 2 })).toBe(0)
})

test('shapes broadcast from the right, as in numpy', () => {
  expect(broadcast(['batch', 'seq', 8], [8])).toEqual(['batch', 'seq', 8])
  expect(broadcast([8], ['batch', 'seq', 8])).toEqual(['batch', 'seq', 8])
  expect(broadcast(['batch', 1, 8], ['seq', 1])).toEqual(['batch', 'seq', 8])
  expect(broadcast([], ['seq'])).toEqual(['seq'])
  expect(broadcast([2, 3], [3, 2])).toBeUndefined()
  // Symbols are equal only when they are the same: nobody knows whether seq is 8.
  expect(broadcast(['seq'], [8])).toBeUndefined()
  expect(broadcast(['seq'], ['batch'])).toBeUndefined()
})

test('shapes are compared and shown', () => {
  expect(sameShape(['batch', 3], ['batch', 3])).toBe(true)
  expect(sameShape(['batch', 3], ['batch'])).toBe(false)
  expect(sameShape(['batch'], ['batch', 3])).toBe(false)
  expect(sameShape(['batch', 3], [3, 'batch'])).toBe(false)
  expect(showShape(['2*seq', 3])).toBe('[2*seq, 3]')
})

test('the one symbol that is not known yet follows from the size of a dimension', () => {
  const values: Record<string, number> = { batch: 2 }
  solveDim('seq', 5, values)
  solveDim('3*batch*rows', 24, values)
  expect(values).toEqual({ batch: 2, seq: 5, rows: 4 })
  // Two of them do not, nor does one that would not be whole; what is known stays.
  solveDim('part*upto', 12, values)
  solveDim('2*part', 5, values)
  solveDim('batch*seq', 99, values)
  solveDim(7, 8, values)
  expect(values).toEqual({ batch: 2, seq: 5, rows: 4 })
})
