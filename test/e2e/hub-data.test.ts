import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { findData } from '../../src/hub/resolve.ts'
import { recordsOf } from '../../src/text/readers/records.fixture.ts'
import { LowrankError } from '../../src/util/errors.ts'
import { resultOf } from '../../src/util/task.ts'
import { refuse, type ServedRepo, StandIn } from './hub-server.ts'
import { temporaryFolder } from './support.ts'

// The hub is a stand-in on real sockets; everything else is real.

const folder = temporaryFolder()
const golden = fileURLToPath(new URL('../golden/parquet', import.meta.url))
const parquet = (name: string): Buffer => readFileSync(join(golden, `five-${name}.parquet`))
const hub = new StandIn()
const id = 'org/data'
let repo: ServedRepo
let cache: string
let caches = 0

const variables = ['HF_ENDPOINT', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE', 'HF_TOKEN'] as const
const before = variables.map((name) => process.env[name])

beforeAll(async () => {
  await hub.start()
  repo = hub.add(id, undefined, {
    'README.md': 'A dataset.',
    'data/train-00000-of-00002.parquet': parquet('zstd'),
    'data/train-00001-of-00002.parquet': parquet('groups'),
    'data/test-00000-of-00001.parquet': parquet('none'),
    'train.jsonl': '{"not":"taken"}',
  })
  repo.branches.add('v1')
  hub.add('org/lines', undefined, { 'dataset_infos.json': '{}', 'all one.jsonl': '{"a":1}\n', 'b.jsonl': '{"a":2}\n' })
  hub.add('org/script', undefined, { 'README.md': 'Run it.', 'script.py': 'import os', 'dataset_infos.json': '{}' })
  hub.add('org/many', undefined, { 'en/train-0.parquet': parquet('v2'), 'de/train-0.parquet': parquet('delta') })
  hub.add('org/odd', undefined, { 'x\\..\\train.jsonl': '{}' })
})
afterAll(() => hub.stop())
beforeEach(() => {
  cache = join(folder, `cache-${caches++}`)
  for (const name of variables) delete process.env[name]
  process.env['HF_ENDPOINT'] = hub.endpoint
  process.env['HF_HUB_CACHE'] = cache
})
afterEach(() => {
  hub.reset()
  variables.forEach((name, i) => {
    if (before[i] === undefined) delete process.env[name]
    else process.env[name] = before[i]
  })
})

async function find(spec: string, cancelled = (): boolean => false): Promise<{ paths: string[]; told: string[] }> {
  const told: string[] = []
  const sources = await resultOf(findData(spec, { cancelled }), ({ message }) => told.push(message))
  return { paths: sources.map(({ path }) => path), told }
}

async function refused(spec: string, cancelled?: () => boolean): Promise<string> {
  const error: unknown = await find(spec, cancelled).catch((thrown: unknown) => thrown)
  if (error instanceof LowrankError) return `${error.code}: ${error.message} | ${error.hint ?? ''}`
  throw new Error('not refused', { cause: error })
}

const snapshot = (): string => join(cache, 'datasets--org--data', 'snapshots', repo.commit)
const train = ['data/train-00000-of-00002.parquet', 'data/train-00001-of-00002.parquet']

test('a split comes into the cache as Python lays it out, and is read', async () => {
  const { paths } = await find(`hf:${id}`)
  expect(paths).toEqual(train.map((name) => join(snapshot(), name)))
  expect(readFileSync(join(cache, 'datasets--org--data', 'refs', 'main'), 'utf8')).toBe(repo.commit)
  for (const path of paths) {
    const records = await recordsOf(path)
    expect(records).toHaveLength(5)
  }
  expect(hub.hub.some(({ url }) => /README|test-|jsonl/.test(url.split('?')[0]!))).toBe(false)

  // What is there is not downloaded again, and serves without a network.
  hub.reset()
  expect((await find(`hf:${id}`)).paths).toEqual(paths)
  expect(hub.cdn).toEqual([])
  process.env['HF_HUB_OFFLINE'] = '1'
  expect((await find(`hf:${id}`)).paths).toEqual(paths)
  expect(await refused(`hf:${id}/test`)).toContain('data: the dataset org/data has no split "test"; it has train')
})

test('another split, at a revision', async () => {
  const { paths } = await find(`hf:${id}@v1/test`)
  expect(paths).toEqual([join(snapshot(), 'data/test-00000-of-00001.parquet')])
  expect((await find(`hf:${id}@${repo.commit}/test`)).paths).toEqual(paths)
})

test('files of JSON, without words of splits, are all for training', async () => {
  const { paths } = await find('hf:org/lines')
  expect(paths.map((path) => path.split('/').at(-1))).toEqual(['all one.jsonl', 'b.jsonl'])
  expect(await recordsOf(paths[0]!)).toEqual([{ a: 1 }])
})

test('a folder chooses among splits of one name', async () => {
  expect(await refused('hf:org/many')).toContain('in 2 folders: de, en | Name one: hf:org/many/de/train')
  const { paths } = await find('hf:org/many/de/train')
  expect(paths.map((path) => path.split('/').slice(-2))).toEqual([['de', 'train-0.parquet']])
})

describe('what cannot be had', () => {
  test.each([
    [`hf:${id}/dev`, 'data: the dataset org/data has no split "dev"; it has test, train'],
    ['hf:org/script', 'data: the dataset org/script has no files of Parquet, JSON or tables'],
    ['hf:org/none', 'data: org/none: the hub has no such dataset that is public'],
    [`hf:${id}@none`, 'data: org/data has no revision "none"'],
    ['hf:org/odd', 'whose name leads elsewhere'],
  ])('%s', async (spec, why) => {
    expect(await refused(spec)).toContain(why)
  })

  test('a gated one', async () => {
    hub.onHub = (_, response) => {
      refuse(response, 403, 'GatedRepo')
      return true
    }
    expect(await refused(`hf:${id}`)).toContain(`Accept its licence at ${hub.endpoint}/datasets/org/data`)
  })

  test('offline, what the cache has in part', async () => {
    process.env['HF_HUB_OFFLINE'] = '1'
    expect(await refused(`hf:${id}`)).toContain('data: org/data: HF_HUB_OFFLINE is set, and the cache')
  })

  test('offline, a split of which a part is missing', async () => {
    const { paths } = await find(`hf:${id}`)
    rmSync(paths[1]!)
    process.env['HF_HUB_OFFLINE'] = '1'
    expect(await refused(`hf:${id}`)).toContain('has not all of its split "train"')
  })

  test('a cancel', async () => {
    hub.onCdn = () => true
    const begun = performance.now()
    expect(await refused(`hf:${id}`, () => performance.now() - begun > 300)).toContain(
      'cancelled: the download of the data',
    )
  })
})
