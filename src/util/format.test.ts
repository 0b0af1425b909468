import { expect, test } from 'vitest'
import { formatSize } from './format.ts'

test('sizes in words', () => {
  expect([999, 1234, 412e6, 3.214e9, 36e9].map(formatSize)).toEqual([
    '999 bytes',
    '1,234 bytes',
    '412 MB',
    '3.21 GB',
    '36.00 GB',
  ])
})
