import { expect, test } from 'vitest'
import { parseSize } from './size.ts'

test.each([
  ['8GB', 8e9],
  ['900MB', 9e8],
  ['24GiB', 24 * 2 ** 30],
  ['1.5 tb', 1.5e12],
  [' 512 kib ', 2 ** 19],
  ['7b', 7],
  ['0.5KB', 500],
])('%s', (text, bytes) => {
  expect(parseSize(text)).toBe(bytes)
})

test.each(['', '8', '8G', 'GB', '-1GB', '0GB', '0.1B', '1e3GB', '8 GB RAM', '8,5GB', '9999999TB', 'Infinity GB'])(
  '"%s" is no size',
  (text) => {
    expect(parseSize(text)).toBeUndefined()
  },
)
