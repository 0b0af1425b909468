import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { kernelsFile } from './kernels.ts'

test('the bytes in the repository are made of the source', async () => {
  expect(readFileSync('src/storage/kernels/bytes.ts', 'utf8')).toBe(await kernelsFile())
})
