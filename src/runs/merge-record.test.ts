import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { formatMergeRecord, mergedFrom, type MergeRecord, mergeRecordName, readMergeRecord } from './merge-record.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
})
afterEach(() => rm(folder, { recursive: true }))

const record: MergeRecord = {
  lowrank: '0.1.0',
  base: { name: 'base', held: 'as it is stored' },
  adapters: [
    { name: 'a', scale: 1, sha256: '12' },
    { name: 'b', scale: -0.5, sha256: '34' },
  ],
  dtype: 'bf16',
}

test('a record is read as it was written', async () => {
  await writeFile(join(folder, mergeRecordName), formatMergeRecord(record))
  expect(await readMergeRecord(folder)).toEqual(record)
  expect(mergedFrom(record)).toBe('base and a, b:-0.5')
})

test.each([
  ['nothing', undefined],
  ['no JSON', '{'],
  ['that of another program', '{"base": "model", "models": []}'],
  ['one without adapters', JSON.stringify({ ...record, adapters: [] })],
])('%s is no record', async (_, text) => {
  if (text === undefined) await mkdir(join(folder, mergeRecordName))
  else await writeFile(join(folder, mergeRecordName), text)
  expect(await readMergeRecord(folder)).toBeUndefined()
})
