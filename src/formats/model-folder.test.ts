import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { listModelFolder } from './model-folder.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
})
afterEach(() => rm(folder, { recursive: true }))

test('the files of a folder', async () => {
  await writeFile(join(folder, 'config.json'), '{}')
  expect(await listModelFolder(folder)).toEqual(['config.json'])
})

test('the name of a model on the hub', async () => {
  await expect(listModelFolder('SomeOne/Some-Model_1.5B')).rejects.toMatchObject({
    code: 'model',
    message: expect.stringContaining('if it is the name of a model on the hub') as string,
    hint: expect.stringContaining('hf download SomeOne/Some-Model_1.5B') as string,
  })
})

test('a file in place of its folder', async () => {
  const path = join(folder, 'model.safetensors')
  await writeFile(path, '')
  await expect(listModelFolder(path)).rejects.toThrow('is a file; the folder of a model, or a .gguf file, is expected')
})

test('a folder of GGUF files', async () => {
  for (const name of ['a.gguf', 'b.gguf']) await writeFile(join(folder, name), '')
  await expect(listModelFolder(folder)).rejects.toMatchObject({
    message: `${folder} has no config.json, but GGUF files: each is a model by itself`,
    hint: `Name the file: ${join(folder, 'a.gguf')} or ${join(folder, 'b.gguf')}`,
  })
})

test('the root of a model in the cache of the hub', async () => {
  const snapshot = join(folder, 'snapshots', '0123abcd')
  await mkdir(snapshot, { recursive: true })
  await expect(listModelFolder(folder)).rejects.toMatchObject({ hint: expect.stringContaining(snapshot) as string })
})

test('no folder at all', async () => {
  await expect(listModelFolder(join(folder, 'no', 'where'))).rejects.toThrow('cannot open the folder')
})

test('the folder of an adapter', async () => {
  await writeFile(join(folder, 'adapter_config.json'), '{}')
  await expect(listModelFolder(folder)).rejects.toThrow(
    'is the folder of an adapter; that of its base model is expected',
  )
})
