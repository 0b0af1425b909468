import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { hashFile, hashFiles, hashingInThreads, hashText } from './hash.ts'

const folder = mkdtempSync(join(tmpdir(), 'lowrank-hash-'))
afterAll(() => rmSync(folder, { recursive: true }))
const [one, other] = ['one', 'other'].map((name) => join(folder, name)) as [string, string]
writeFileSync(one, 'some text')
writeFileSync(other, Buffer.alloc(17e6, 7))

test('threads find the same as the thread that asks', async () => {
  const threads = hashingInThreads()
  expect(await hashFile(one)).toBe(hashText('some text'))
  expect(await threads.file(one)).toBe(await hashFile(one))
  expect(await threads.files([one, other])).toBe(await hashFiles([one, other]))
  expect(await hashFiles([one, other])).not.toBe(await hashFiles([other, one]))
  await expect(threads.file(join(folder, 'none'))).rejects.toMatchObject({ code: 'io' })
})

test('what is stopped is not waited for', async () => {
  const { file, stop } = hashingInThreads()
  const found = file(other)
  // The file is looked at first.
  await new Promise((resolve) => setTimeout(resolve, 20))
  stop()
  await found.catch((error: unknown) => expect(error).toMatchObject({ code: 'internal' }))
})
