import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { listCached, removeCached } from './cached.ts'

const cache = mkdtempSync(join(tmpdir(), 'lowrank-cached-'))
afterAll(() => rmSync(cache, { recursive: true }))

/** A repository of one file, as Python's library lays it out. */
function make(folder: string, commit: string, content: string): void {
  const root = join(cache, folder)
  for (const name of ['blobs', 'refs', `snapshots/${commit}`]) mkdirSync(join(root, name), { recursive: true })
  writeFileSync(join(root, 'blobs/hash'), content)
  writeFileSync(join(root, 'refs/main'), commit)
  symlinkSync('../../blobs/hash', join(root, 'snapshots', commit, 'file'))
}

test('datasets are listed and removed by the name that they have as data, apart from a model of that name', async () => {
  const [a, b] = ['a'.repeat(40), 'b'.repeat(40)]
  make('models--org--name', a, 'weights')
  make('datasets--org--name', b, 'data')
  make('datasets--org--other', a, 'more')
  make('spaces--org--name', a, 'no')
  const listed = async (): Promise<unknown> =>
    (await listCached(cache))
      .map(({ id, kind, revision, size }) => [id, kind, revision, size] as const)
      .sort((x, y) => (x[0] < y[0] ? -1 : 1))
  const other = ['hf:org/other', 'dataset', a, 4]
  expect(await listed()).toEqual([['hf:org/name', 'dataset', b, 4], other, ['org/name', 'model', a, 7]])
  await expect(removeCached('org/other', cache)).rejects.toMatchObject({
    code: 'model',
    message: `the cache ${cache} has no org/other`,
    hint: 'It has the dataset hf:org/other.',
  })
  expect(await removeCached('hf:org/name@main', cache)).toEqual({ id: 'hf:org/name', revisions: [b], bytes: 44 })
  expect(await listed()).toEqual([other, ['org/name', 'model', a, 7]])
  expect(await removeCached('org/name', cache)).toMatchObject({ id: 'org/name', revisions: [a] })
  expect(await listed()).toEqual([other])
  expect(readdirSync(cache)).toContain('spaces--org--name')
  await expect(removeCached('hf:org', cache)).rejects.toThrow('"hf:org" is not the name of a model or a dataset')
})
