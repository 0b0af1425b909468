import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { writeFileAtomic, writeStreamAtomic } from './atomic.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
})
afterEach(() => rm(folder, { recursive: true }))

it('replaces a file and leaves nothing beside it', async () => {
  const path = join(folder, 'a.txt')
  await writeFileAtomic(path, 'old')
  await writeFileAtomic(path, 'naïve')
  expect(await readFile(path, 'utf8')).toBe('naïve')
  expect(await readdir(folder)).toEqual(['a.txt'])
})

it('keeps the old file until the last byte is written, and after a failure', async () => {
  const path = join(folder, 'a.txt')
  await writeFile(path, 'old')
  const failure = new Error('producer failed')
  const writing = writeStreamAtomic(path, async (write) => {
    await write(Buffer.from('half'))
    expect(await readFile(path, 'utf8')).toBe('old')
    expect(await readdir(folder)).toHaveLength(2)
    throw failure
  })
  await expect(writing).rejects.toBe(failure)
  expect(await readFile(path, 'utf8')).toBe('old')
  expect(await readdir(folder)).toEqual(['a.txt'])
})

it('names the file when the system refuses', async () => {
  const path = join(folder, 'missing', 'a.txt')
  await expect(writeFileAtomic(path, 'x')).rejects.toMatchObject({
    code: 'io',
    message: expect.stringContaining(`cannot write ${path}: ENOENT`),
    hint: expect.stringContaining('exist'),
  })
  const file = join(folder, 'file')
  await writeFileAtomic(file, 'x')
  await expect(writeFileAtomic(join(file, 'a.txt'), 'x')).rejects.toMatchObject({
    code: 'io',
    hint: 'There is a file where a folder is needed: choose another path.',
  })
})
