import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { listModelFolder, modelFolderHint, readSmallFiles } from './model-folder.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
})
afterEach(() => rm(folder, { recursive: true }))

test('the files of a folder', async () => {
  await writeFile(join(folder, 'config.json'), '{}')
  expect(await listModelFolder(folder)).toEqual(['config.json'])
})

test('a file instead of its folder', async () => {
  const path = join(folder, 'model.safetensors')
  await writeFile(path, '')
  await expect(listModelFolder(path)).rejects.toMatchObject({
    message: `${path} is a file; the folder of a model, or a .gguf file, is expected`,
    hint: expect.stringContaining(`Name the folder that holds it: ${JSON.stringify(folder)}.`) as string,
  })
  const data = join(folder, 'train.jsonl')
  await writeFile(data, '')
  await expect(listModelFolder(data)).rejects.toMatchObject({
    message: `${data} is a file; the folder of a model, or a .gguf file, is expected`,
    hint: modelFolderHint,
  })
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

test('files of the cache of the hub are read where they lie, and no others', async () => {
  const snapshot = join(folder, 'models--org--name', 'snapshots', '0123abcd')
  for (const path of [snapshot, join(folder, 'blobs', 'ab'), join(folder, 'models--org--name', 'blobs')]) {
    await mkdir(path, { recursive: true })
  }
  const names = { 'blobs/ab/c': 'shared', 'models--org--name/blobs/d': 'own', elsewhere: 'foreign' }
  for (const [name, text] of Object.entries(names)) await writeFile(join(folder, name), text)
  // Python's library keeps some contents once for all models.
  await symlink('../../blobs/ab/c', join(folder, 'models--org--name', 'blobs', 'e'))
  await symlink('../../blobs/e', join(snapshot, 'tokenizer.json'))
  await symlink('../../blobs/d', join(snapshot, 'merges.txt'))
  await symlink('../../../elsewhere', join(snapshot, 'vocab.json'))
  const { files, leftOut } = await readSmallFiles(snapshot, ['tokenizer.json', 'merges.txt', 'vocab.json'])
  expect([...files].map(([name, bytes]) => [name, Buffer.from(bytes).toString()])).toEqual([
    ['tokenizer.json', 'shared'],
    ['merges.txt', 'own'],
  ])
  expect(leftOut).toHaveLength(1)
})
