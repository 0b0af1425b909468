import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { type JsonlLine, readJsonl } from './jsonl.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
})
afterEach(() => rm(folder, { recursive: true }))

async function linesOf(content: string | Uint8Array, options: { maxLineBytes?: number } = {}): Promise<JsonlLine[]> {
  const path = join(folder, 'data.jsonl')
  await writeFile(path, content)
  const lines: JsonlLine[] = []
  for await (const line of readJsonl(path, options)) lines.push(line)
  return lines
}

it('accepts a byte order mark, CRLF, blank lines and a missing last line feed', async () => {
  expect(await linesOf('\ufeff{"a":1}\r\n\r\n  \n[2]\r\n"drei €"')).toEqual([
    { line: 1, value: { a: 1 } },
    { line: 4, value: [2] },
    { line: 5, value: 'drei €' },
  ])
  expect(await linesOf('1\n\ufeff2')).toEqual([
    { line: 1, value: 1 },
    { line: 2, value: 2 },
  ])
  expect(await linesOf('')).toEqual([])
  expect(await linesOf('1\n')).toEqual([{ line: 1, value: 1 }])
})

it('goes on after a malformed line and says what is wrong with it', async () => {
  const bytes = Buffer.concat([Buffer.from('{"a":\n1\n"'), Buffer.from([0xc3, 0x28]), Buffer.from('"\n2\n')])
  expect(await linesOf(bytes)).toEqual([
    { line: 1, error: expect.stringMatching(/^not valid JSON \(/) },
    { line: 2, value: 1 },
    { line: 3, error: 'not valid UTF-8' },
    { line: 4, value: 2 },
  ])
  expect(await linesOf('1\n\0\0')).toEqual([
    { line: 1, value: 1 },
    { line: 2, error: 'not valid JSON (it holds zero bytes; a damaged file?)' },
  ])
})

it('bounds the length of a line, in bytes', async () => {
  expect(await linesOf('"€€"\n"€€€"\n1', { maxLineBytes: 8 })).toEqual([
    { line: 1, value: '€€' },
    { line: 2, error: 'longer than 8 bytes' },
    { line: 3, value: 1 },
  ])
})

it('joins lines that span many reads', async () => {
  const values = Array.from({ length: 50 }, (_, i) => '€'.repeat(i * 1000))
  const lines = await linesOf(values.map((value) => JSON.stringify(value)).join('\n'))
  expect(lines).toEqual(values.map((value, i) => ({ line: i + 1, value })))
})

it('names a file that is not there', async () => {
  const path = join(folder, 'none.jsonl')
  await expect(readJsonl(path).next()).rejects.toMatchObject({ code: 'data', message: expect.stringContaining(path) })
})
