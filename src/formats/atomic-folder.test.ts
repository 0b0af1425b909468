import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { removeFolderAtomic, settleFolders, writeFolderAtomic } from './atomic-folder.ts'

let parent: string
beforeEach(async () => {
  parent = await mkdtemp(join(tmpdir(), 'lowrank-'))
})
afterEach(() => rm(parent, { recursive: true }))

const put = async (name: string, text: string): Promise<void> => {
  await mkdir(join(parent, name), { recursive: true })
  await writeFile(join(parent, name, 'file'), text)
}
const text = (name: string): Promise<string> => readFile(join(parent, name, 'file'), 'utf8')
const names = async (): Promise<string[]> => (await readdir(parent)).sort()
const isOurs = (name: string): boolean => name === 'c'

it('the folder has its name only once it is whole', async () => {
  let meanwhile: string[] = []
  await writeFolderAtomic(join(parent, 'c'), async (folder) => {
    await writeFile(join(folder, 'file'), 'new')
    meanwhile = await names()
  })
  expect(meanwhile).toEqual(['c.tmp'])
  expect(await names()).toEqual(['c'])
  expect(await text('c')).toBe('new')
})

it('a folder already there stays until its successor is whole, and leaves nothing of itself', async () => {
  await put('c', 'old')
  await writeFile(join(parent, 'c', 'other'), '')
  await put('c.tmp', 'left behind')
  await writeFolderAtomic(join(parent, 'c'), async (folder) => {
    expect(await readdir(folder)).toEqual([])
    expect(await text('c')).toBe('old')
    await writeFile(join(folder, 'file'), 'new')
  })
  expect(await names()).toEqual(['c'])
  expect(await readdir(join(parent, 'c'))).toEqual(['file'])
})

it('a failure leaves the old folder alone', async () => {
  await put('c', 'old')
  const failing = writeFolderAtomic(join(parent, 'c'), async (folder) => {
    await writeFile(join(folder, 'file'), 'half')
    throw new Error('no room')
  })
  await expect(failing).rejects.toThrow('no room')
  expect(await names()).toEqual(['c'])
  expect(await text('c')).toBe('old')
})

it.each([
  ['while it was written', ['c.tmp'], []],
  ['while its successor was written', ['c', 'c.tmp'], ['c']],
  ['between two renames', ['c.old', 'c.tmp'], ['c']],
  ['before the old one was removed', ['c', 'c.old'], ['c']],
])('a process killed %s leaves a folder that is put right', async (_, found, left) => {
  for (const name of found) await put(name, name)
  // Not ours to touch.
  for (const name of ['other.tmp', 'other.old']) await put(name, name)
  await settleFolders(parent, isOurs)
  expect(await names()).toEqual([...left, 'other.old', 'other.tmp'])
  if (left.length > 0) expect(await text('c')).toBe(found.includes('c') ? 'c' : 'c.old')
})

it('a folder that is removed is first called something else', async () => {
  await put('c', 'old')
  await removeFolderAtomic(join(parent, 'c'))
  expect(await names()).toEqual([])
})
