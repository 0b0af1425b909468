import { messageOf } from '../util/errors.ts'
import { maxRecordBytes, readChunks, splitLines } from './chunks.ts'
import { parseJson } from './json.ts'

/** A line of a text, numbered from 1: its value, or why it has none. */
export type Line<T = unknown> =
  { readonly line: number; readonly value: T } | { readonly line: number; readonly error: string }

/** A line of a JSONL file. */
export type JsonlLine = Line

interface Limits {
  readonly maxLineBytes?: number
}

/**
 * Reads a JSONL file line by line; memory is bounded by the longest line. Blank lines are passed over (and counted in the
 * line numbers); CRLF is accepted, and a byte order mark before any line (files are joined from several). A malformed line is
 * yielded as `{ line, error }`, so that the caller can collect them all. Only a file that cannot be read throws (code `data`).
 */
export function readJsonl(path: string, limits: Limits = {}): AsyncGenerator<JsonlLine> {
  return parseJsonl(readChunks(path), limits)
}

/** `readJsonl` of bytes. */
export async function* parseJsonl(chunks: AsyncIterable<Uint8Array>, limits: Limits = {}): AsyncGenerator<JsonlLine> {
  for await (const found of readTextLines(chunks, limits)) yield 'error' in found ? found : valueOf(found)
}

/** The lines of a text that are not blank, without what ends them. */
export async function* readTextLines(
  chunks: AsyncIterable<Uint8Array>,
  { maxLineBytes = maxRecordBytes }: Limits = {},
): AsyncGenerator<Line<string>> {
  let line = 0
  for await (const bytes of splitLines(chunks, maxLineBytes)) {
    line++
    if (bytes === 'too long') {
      yield { line, error: `longer than ${maxLineBytes} bytes` }
      continue
    }
    const value = decodeUtf8(hasByteOrderMark(bytes) ? bytes.subarray(3) : bytes)
    if (value === undefined) yield { line, error: notUtf8 }
    else if (value.trim() !== '') yield { line, value: value.endsWith('\r') ? value.slice(0, -1) : value }
  }
}

function valueOf({ line, value: text }: { readonly line: number; readonly value: string }): JsonlLine {
  const found = jsonOf(text)
  return 'error' in found ? { line, error: found.error } : { line, value: found.value }
}

/** The value of a record written as JSON, or why there is none. */
export function jsonOf(text: string): { readonly value: unknown } | { readonly error: string } {
  try {
    return { value: parseJson(text) }
  } catch (error) {
    const why = text.includes('\0') ? 'it holds zero bytes; a damaged file?' : messageOf(error)
    return { error: `not valid JSON (${why})` }
  }
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
export const notUtf8 = 'not valid UTF-8'

/** The text that bytes are, if they are one. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes)
  } catch {
    return undefined
  }
}

export function hasByteOrderMark(bytes: Uint8Array): boolean {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf
}
