import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { LowrankError } from '../../util/errors.ts'
import { type DatasetName, findSources } from './sources.ts'

const folder = mkdtempSync(join(tmpdir(), 'lowrank-sources-'))
const before = process.cwd()
beforeAll(() => {
  const names =
    'a.jsonl b.csv a,b.jsonl c:2 x{1}.txt set/2.jsonl set/10.csv.gz set/README.txt set/dataset_infos.json set/image.png ' +
    'set/sub/test.parquet set/.hidden/a.jsonl set/.a.jsonl arrow/data.arrow pair/train.jsonl org/name.txt'
  for (const name of names.split(' ')) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), '')
  }
  mkdirSync(join(folder, 'empty'))
  process.chdir(folder)
})
afterAll(() => {
  process.chdir(before)
  rmSync(folder, { recursive: true })
})

async function find(
  spec: string | readonly string[],
): Promise<{ found: string[]; notes: string[]; asked: DatasetName[] }> {
  const [notes, asked]: [string[], DatasetName[]] = [[], []]
  const hub = async (name: DatasetName): Promise<string[]> => {
    asked.push(name)
    return ['/cache/1.parquet', '/cache/2.parquet']
  }
  const sources = await findSources(spec, { hub, onNote: (note) => notes.push(note) })
  return { found: sources.map(({ path, weight }) => (weight === 1 ? path : `${path} x ${weight}`)), notes, asked }
}

const all = ['set/10.csv.gz', 'set/2.jsonl', 'set/sub/test.parquet']

test.each<[string | string[], string[]]>([
  ['a.jsonl', ['a.jsonl']],
  ['a.jsonl,b.csv:0.5', ['a.jsonl', 'b.csv x 0.5']],
  ['a.jsonl, b.csv:2e1', ['a.jsonl', 'b.csv x 20']],
  ['a,b.jsonl', ['a,b.jsonl']],
  ['c:2', ['c:2']],
  ['c:2:3', ['c:2 x 3']],
  ['-', ['-']],
  ['-:2,a.jsonl', ['- x 2', 'a.jsonl']],
  [
    ['a,b.jsonl:3', 'b.csv'],
    ['a,b.jsonl x 3', 'b.csv'],
  ],
  ['{a,b}.{jsonl,csv}', ['a.jsonl', 'b.csv']],
  ['*.jsonl:2', ['a,b.jsonl x 2', 'a.jsonl x 2']],
  ['set/**/*.{jsonl,parquet}', ['set/2.jsonl', 'set/sub/test.parquet']],
  ['x{1}.txt', ['x{1}.txt']],
  ['set', all],
  ['set/:2', all.map((path) => `${path} x 2`)],
  ['hf:org/name:2', ['/cache/1.parquet x 2', '/cache/2.parquet x 2']],
])('%j', async (spec, expected) => {
  expect((await find(spec)).found).toEqual(expected)
})

test('a folder says what it leaves out, and that it takes files for tests', async () => {
  expect((await find('set')).notes).toEqual([
    'left out of set: README.txt, dataset_infos.json, image.png',
    'all 3 files in set are used, sub/test.parquet among them; name files to choose',
  ])
})

test.each<[string, DatasetName]>([
  ['hf:org/name', { id: 'org/name', revision: undefined, split: 'train' }],
  ['hf:org/name@v1', { id: 'org/name', revision: 'v1', split: 'train' }],
  ['hf:org/name@v1.0/test', { id: 'org/name', revision: 'v1.0', split: 'test' }],
  ['hf:org/name/en/train:3', { id: 'org/name', revision: undefined, split: 'en/train' }],
])('a dataset of the hub: %s', async (spec, expected) => {
  expect((await find(spec)).asked).toEqual([expected])
})

describe('what names nothing', () => {
  test.each<[string | string[], string]>([
    ['none.jsonl', 'there is no file, folder or pattern "none.jsonl", looked for in FOLDER | Check the path'],
    ['*.none', 'no file matches "*.none", looked for in FOLDER'],
    ['org/none', 'If it is a dataset of the Hugging Face hub, name it hf:org/none'],
    ['https://a.b/c.jsonl', 'Download it first'],
    ['a.jsonl,', 'Is there a comma too many?'],
    ['a.jsonl:0', 'the weight of a.jsonl is "0"; a number above zero is expected'],
    ['a.jsonl:-1', 'the weight of a.jsonl is "-1"'],
    ['a.jsonl:x', 'the weight of a.jsonl is "x"'],
    ['a.jsonl:', 'the weight of a.jsonl is ""'],
    ['a.jsonl:1e999', 'the weight of a.jsonl is "1e999"'],
    ['a.jsonl,./a.jsonl', 'the data name ./a.jsonl twice | To have it count more, give it a weight'],
    ['-,-', 'the data name - twice | It can be read once.'],
    ['arrow', 'the folder arrow has no file of data: data.arrow | What is read ends with .jsonl'],
    ['empty', 'the folder empty has no file of data: it is empty'],
    ['hf:name', '"hf:name" is no name of a dataset on the hub'],
    ['hf:org/../x', 'is no name of a dataset on the hub'],
  ])('%j', async (spec, why) => {
    const error: unknown = await find(spec).catch((thrown: unknown) => thrown)
    if (!(error instanceof LowrankError)) throw new Error('not refused', { cause: error })
    expect(`${error.message} | ${error.hint ?? ''}`.replaceAll(process.cwd(), 'FOLDER')).toContain(why)
  })
})
