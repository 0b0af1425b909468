import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { readerFolder, recordsOf, zstd, zstdFrame } from './records.fixture.ts'
import { unzstd } from './zstd.ts'

const { write, read, refused } = readerFolder()
const golden = fileURLToPath(new URL('../../../test/golden/parquet', import.meta.url))

const bytes = (...parts: (string | readonly number[])[]): Buffer =>
  Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : Buffer.from(part))))

const lines = ['plain', 'drei €', '{}'].map((text, i) => `${JSON.stringify({ text, i })}\n`).join('')

describe('gzip', () => {
  const whole = gzipSync(lines.repeat(1000))

  test('parts behind each other, and zeros at the end', async () => {
    const content = Buffer.concat([gzipSync('{"a":1}\n{"a"'), gzipSync(':2}'), Buffer.alloc(100)])
    expect(await read('a.jsonl.gz', content)).toEqual([{ a: 1 }, { a: 2 }])
    // What it is called does not matter.
    expect(await read('a.jsonl', content)).toHaveLength(2)
    expect(await read('a.csv.GZ', gzipSync('a\n1'))).toEqual([{ a: '1' }])
  })

  test.each<[string, Buffer]>([
    ['cut', whole.subarray(0, -20)],
    ['cut in its header', whole.subarray(0, 5)],
    ['changed', Buffer.concat([whole.subarray(0, 100), bytes([whole[100]! ^ 1]), whole.subarray(101)])],
    ['with another checksum', Buffer.concat([whole.subarray(0, -8), bytes([1, 2, 3, 4]), whole.subarray(-4)])],
    ['with more behind it', Buffer.concat([whole, Buffer.from('{"a":1}')])],
  ])('%s is damaged', async (_, content) => {
    expect(await refused('a.jsonl.gz', content)).toMatch(
      /^a\.jsonl\.gz is gzip-compressed and damaged: .+ \| .*download/,
    )
  })

  test('twice', async () => {
    expect(await refused('a.jsonl.gz', gzipSync(whole))).toContain('is compressed more than once')
  })
})

describe('zstd', () => {
  const names = ['lines.jsonl.zst', 'streamed.jsonl.zst', 'two.jsonl.zst']
  const whole = readFileSync(join(golden, '../zstd/lines.jsonl.zst'))

  test.each(names)("what Zstandard's own tool writes: %s", async (name) => {
    const records = await recordsOf(join(golden, '../zstd', name))
    expect(records).toEqual(
      Array.from({ length: 4000 }, (_, i) => ({ text: `line ${i} of ${(i * i) % 1009}, drei €` })),
    )
  })

  test('bytes that come one by one', async () => {
    const one = async function* (): AsyncGenerator<Uint8Array> {
      for (const byte of zstd(lines)) yield Uint8Array.of(byte)
    }
    const found: Uint8Array[] = []
    for await (const bytes of unzstd(one())) found.push(bytes)
    expect(Buffer.concat(found).toString()).toBe(lines)
  })

  test.each<[string, Uint8Array, string]>([
    ['cut', whole.subarray(0, -20), 'it ends too early'],
    ['cut before its checksum', whole.subarray(0, -4), 'it ends too early'],
    ['cut in its header', whole.subarray(0, 5), 'it ends too early'],
    [
      'with another checksum',
      Buffer.concat([whole.subarray(0, -1), bytes([whole.at(-1)! ^ 1])]),
      'its checksum is wrong',
    ],
    ['changed', changed(zstd(lines), 40), 'its checksum is wrong'],
    ['with more behind it', Buffer.concat([whole, Buffer.from('{"a":1}\n{"a":2}')]), 'what follows a frame is none'],
    ['of another size', changed(whole, 5), 'bytes in place of'],
    ['with a window of a terabyte', changed(zstdFrame([Buffer.from(lines)]), 5, 0xf8), 'it needs'],
  ])('%s is damaged', async (_, content, why) => {
    expect(await refused('a.jsonl.zst', content)).toMatch(
      /^a\.jsonl\.zst is zstd-compressed and damaged: .+ \| .*download/,
    )
    expect(await refused('a.jsonl.zst', content)).toContain(why)
  })

  test('changed anywhere in what is compressed', async () => {
    for (let at = 9; at < whole.length; at += 1999) {
      expect(await refused('a.jsonl.zst', changed(whole, at))).toContain('is zstd-compressed and damaged: ')
    }
  })
})

test('what unpacks to much takes little memory', async () => {
  // 1 GB of one character, in blocks that say so.
  const bomb = zstdFrame(Array.from({ length: 8192 }, () => ({ repeat: 0x61, times: 128 * 1024 })))
  expect(bomb.length).toBeLessThan(50_000)
  const path = write('bomb.jsonl.zst', bomb)
  const before = process.memoryUsage.rss()
  let most = 0
  const timer = setInterval(() => (most = Math.max(most, process.memoryUsage.rss() - before)), 5)
  expect(await recordsOf(path)).toEqual([`${path}:1: longer than 67108864 bytes`])
  clearInterval(timer)
  expect(most).toBeLessThan(400e6)
})

function changed(content: Uint8Array, at: number, to = content[at]! ^ 0x10): Uint8Array {
  const copy = Uint8Array.from(content)
  copy[at] = to
  return copy
}
