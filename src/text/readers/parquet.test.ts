import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { afterAll, describe, expect, test } from 'vitest'
import { LowrankError } from '../../util/errors.ts'
import { recordsOf, refusalOf } from './records.fixture.ts'

const folder = mkdtempSync(join(tmpdir(), 'lowrank-parquet-'))
afterAll(() => rmSync(folder, { recursive: true }))

const golden = fileURLToPath(new URL('../../../test/golden/parquet', import.meta.url))
const names = readdirSync(golden).filter((name) => name.endsWith('.parquet'))
const five = names.filter((name) => name.startsWith('five-'))

function write(name: string, content: Uint8Array): string {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

const bytesOf = (name: string): Buffer => readFileSync(join(golden, name))

test('there is a file for each way to store five records', () => {
  expect(five).toEqual(
    ['brotli', 'delta', 'groups', 'gzip', 'lz4', 'none', 'snappy', 'v2', 'zstd'].map((kind) => `five-${kind}.parquet`),
  )
})

test.each(['kinds', 'many'])('%s: what pyarrow was given', async (name) => {
  const expected = JSON.parse(readFileSync(join(golden, `${name}.json`), 'utf8')) as object[]
  expect(expected.length).toBeGreaterThan(3)
  expect(await recordsOf(join(golden, `${name}.parquet`))).toEqual(expected)
})

test('a text that is none is an error of its row; other bytes are no text, and no error', async () => {
  expect(await recordsOf(join(golden, 'bad-text.parquet'))).toEqual([
    { text: 'good', bytes: new Uint8Array([0xff, 0]) },
    `${join(golden, 'bad-text.parquet')}, row 2: not valid UTF-8`,
    { text: 'good', bytes: 'x' },
  ])
})

test('of columns that are not wanted only the names are read', async () => {
  const bytes = bytesOf('five-gzip.parquet')
  const all = await recordsOf(join(golden, 'five-gzip.parquet'))
  // The last page is of the second column.
  const last = bytes.lastIndexOf(Buffer.from([0x1f, 0x8b]))
  bytes.fill(0, last + 10, last + 20)
  const path = write('half.parquet', bytes)
  expect(await refusalOf(path)).toContain('half.parquet as Parquet')
  const asked: (readonly string[])[] = []
  const wanted = (columns: readonly string[]): string[] => {
    asked.push(columns)
    return ['text']
  }
  const read: number[] = []
  const found = await recordsOf(path, { wanted, onBytes: (count) => read.push(count) })
  expect(found).toEqual(all.map((record) => ({ ...(record as object), other: undefined })))
  expect(Object.keys(found[0] as object)).toEqual(['text', 'other'])
  expect(asked).toEqual([['text', 'other']])
  expect(read.length).toBeGreaterThan(1)
})

test('no rows are no records', async () => {
  expect(await recordsOf(join(golden, 'no-rows.parquet'))).toEqual([])
})

describe('a damaged file is one error', () => {
  test.each(five)('%s, cut anywhere', async (name) => {
    const bytes = bytesOf(name)
    for (let end = 4; end < bytes.length; end += 41) {
      const why = await refusalOf(write('cut.parquet', bytes.subarray(0, end)))
      expect(why).toMatch(/^\S+cut\.parquet as Parquet|^cannot read \S+cut\.parquet as Parquet: /)
    }
  })

  // What the package makes of it may be an error in a promise that nobody waits for, or a loop without end.
  test('changed anywhere: an error or records, soon', async () => {
    let [errors, read] = [0, 0]
    for (const name of ['five-v2.parquet', 'five-groups.parquet', 'kinds.parquet']) {
      const bytes = bytesOf(name)
      const step = Math.ceil(bytes.length / 100)
      for (let at = 4; at < bytes.length; at += step) {
        const changed = Buffer.from(bytes)
        changed[at]! ^= 1 << (at % 8)
        const found = await recordsOf(write('changed.parquet', changed)).catch((error: unknown) => error)
        if (Array.isArray(found)) read++
        else errors++
        expect(Array.isArray(found) || found instanceof LowrankError, String(found)).toBe(true)
      }
    }
    expect(errors).toBeGreaterThan(20)
    expect(read).toBeGreaterThan(20)
  })

  // Two mistakes: that of the first column would be thrown where nobody waits for it.
  test('a column that is not in the schema, behind one that cannot be unpacked', async () => {
    const bytes = bytesOf('five-gzip.parquet')
    const gzip = bytes.indexOf(Buffer.from([0x1f, 0x8b]))
    bytes[gzip + 20]! ^= 0xff
    bytes.write('oxher', bytes.lastIndexOf('other'))
    expect(await refusalOf(write('columns.parquet', bytes))).toContain('a row group has the columns ["text"],["oxher"]')
  })

  test('a page header without what belongs in it does not hang', async () => {
    const bytes = bytesOf('five-v2.parquet')
    const at = bytes.indexOf(Buffer.from([0x15, 0x0a, 0x15, 0x00, 0x15, 0x0a]))
    expect(at).toBeGreaterThan(0)
    bytes[at + 2] = 0x17
    expect(await refusalOf(write('hang.parquet', bytes))).toContain('the header of a page is damaged')
  })
})

describe('what is no Parquet file', () => {
  test.each<[string, Uint8Array | string, string]>([
    ['a.parquet', '', 'is no Parquet file: it is empty'],
    ['a.parquet', 'Access denied.', 'is no Parquet file | Files of Parquet begin with PAR1'],
    ['a.parquet', '{"a":1}\n', 'holds JSONL, which its name contradicts'],
    ['a.parquet', 'PAR1', 'a.parquet as Parquet: '],
    ['a.parquet', 'PARE....', 'a Parquet file with an encrypted footer'],
    ['a.parquet.gz', gzipSync(bytesOf('five-none.parquet')), 'a Parquet file that comes gzip-compressed'],
  ])('%s: %.20j', async (name, content, why) => {
    expect(await refusalOf(write(name, Buffer.from(content)))).toContain(why)
  })

  test('its name does not matter', async () => {
    expect(await recordsOf(write('a.csv', bytesOf('five-none.parquet')))).toHaveLength(5)
  })

  test('it cannot come through a pipe', async () => {
    const pipe = join(folder, 'pipe')
    execFileSync('mkfifo', [pipe])
    const writer = spawn('sh', ['-c', `cat ${join(golden, 'five-none.parquet')} > ${pipe}`], { stdio: 'ignore' })
    expect(await refusalOf(pipe)).toContain('it is a pipe, not a file')
    writer.kill()
  })
})
