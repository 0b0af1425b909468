import { open } from 'node:fs/promises'
import { LowrankError, messageOf } from '../util/errors.ts'
import { parseJson } from './json.ts'
import { checkPlainFile } from './plain-file.ts'

/** A line of a JSONL file, numbered from 1: its value, or why it has none. */
export type JsonlLine =
  { readonly line: number; readonly value: unknown } | { readonly line: number; readonly error: string }

/**
 * Reads a JSONL file line by line; memory is bounded by the longest line. Blank lines are passed over (and counted in the
 * line numbers); CRLF is accepted, and a byte order mark before any line (files are joined from several). A malformed line is
 * yielded as `{ line, error }`, so that the caller can collect them all. Only a file that cannot be read throws (code `data`).
 */
export async function* readJsonl(
  path: string,
  { maxLineBytes = 64 * 2 ** 20 }: { maxLineBytes?: number } = {},
): AsyncGenerator<JsonlLine> {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  let line = 0
  for await (const bytes of readLines(path, maxLineBytes)) {
    line++
    if (bytes === 'too long') {
      yield { line, error: `longer than ${maxLineBytes} bytes` }
      continue
    }
    let text: string
    try {
      text = decoder.decode(hasByteOrderMark(bytes) ? bytes.subarray(3) : bytes)
    } catch {
      yield { line, error: 'not valid UTF-8' }
      continue
    }
    if (text.trim() === '') continue
    let value: unknown
    try {
      value = parseJson(text)
    } catch (error) {
      const why = text.includes('\0') ? 'it holds zero bytes; a damaged file?' : messageOf(error)
      yield { line, error: `not valid JSON (${why})` }
      continue
    }
    yield { line, value }
  }
}

/** The bytes of each line, without its line feed. What lies past the limit is not kept in memory. */
async function* readLines(path: string, maxLineBytes: number): AsyncGenerator<Uint8Array | 'too long'> {
  let pieces: Uint8Array[] = []
  let length = 0
  const take = (piece: Uint8Array): void => {
    length += piece.byteLength
    if (length > maxLineBytes) pieces = []
    else pieces.push(piece)
  }
  const finish = (): Uint8Array | 'too long' => {
    const line = length > maxLineBytes ? 'too long' : pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces)
    pieces = []
    length = 0
    return line
  }
  for await (const chunk of readChunks(path)) {
    let start = 0
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
      take(chunk.subarray(start, end))
      yield finish()
      start = end + 1
    }
    if (start < chunk.byteLength) take(chunk.subarray(start))
  }
  if (length > 0) yield finish()
}

async function* readChunks(path: string): AsyncGenerator<Uint8Array> {
  await checkPlainFile(path, { code: 'data', hint, orPipe: true })
  const file = await open(path).catch((cause: unknown) => {
    throw readError(path, cause)
  })
  try {
    for (;;) {
      const { bytesRead, buffer } = await file.read({ buffer: new Uint8Array(chunkBytes) }).catch((cause: unknown) => {
        throw readError(path, cause)
      })
      if (bytesRead === 0) return
      yield buffer.subarray(0, bytesRead)
    }
  } finally {
    await file.close()
  }
}

const chunkBytes = 256 * 1024

function hasByteOrderMark(bytes: Uint8Array): boolean {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf
}

const hint = 'Check the path, relative to the current folder, and that you may read the file.'

function readError(path: string, cause: unknown): LowrankError {
  return new LowrankError('data', `cannot read ${path}: ${messageOf(cause)}`, { cause, hint })
}
