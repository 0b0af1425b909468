import { open, stat } from 'node:fs/promises'

/** What a file is instead of JSONL, and what to do about it. */
interface OtherFormat {
  readonly what: string
  readonly hint: string
}

/** Enough for the first lines of anything that is not JSONL. */
const headBytes = 64 * 1024

/**
 * Names the format of a file that was meant to be JSONL, as far as its beginning shows it: a JSON array, a table, compressed data.
 * Undefined where it may be JSONL with mistakes.
 */
export async function otherFormat(path: string): Promise<OtherFormat | undefined> {
  // What a pipe has given is gone.
  if (!(await stat(path)).isFile()) return undefined
  const file = await open(path)
  try {
    const { bytesRead, buffer } = await file.read({ buffer: Buffer.alloc(headBytes) })
    const head = buffer.subarray(0, bytesRead)
    return binaryFormat(head) ?? textFormat(head.toString('utf8').replace(/^\ufeff/, ''))
  } finally {
    await file.close()
  }
}

const unpack = 'Unpack it first: what is read is plain text, one JSON object a line.'
const convert = 'Write its rows as JSON objects, one a line.'

const signatures: readonly (OtherFormat & { readonly bytes: readonly number[] })[] = [
  { bytes: [0x1f, 0x8b], what: 'gzip-compressed', hint: unpack },
  { bytes: [0x28, 0xb5, 0x2f, 0xfd], what: 'zstd-compressed', hint: unpack },
  { bytes: [0x42, 0x5a, 0x68], what: 'bzip2-compressed', hint: unpack },
  { bytes: [0xfd, 0x37, 0x7a, 0x58, 0x5a], what: 'xz-compressed', hint: unpack },
  { bytes: [0x50, 0x4b, 0x03, 0x04], what: 'a zip archive', hint: unpack },
  { bytes: [0x50, 0x41, 0x52, 0x31], what: 'a Parquet file', hint: convert },
  { bytes: [0x41, 0x52, 0x52, 0x4f, 0x57, 0x31], what: 'an Arrow file', hint: convert },
]

function binaryFormat(head: Uint8Array): OtherFormat | undefined {
  const [first, second] = head
  const byteOrderMark = (first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff)
  // JSON begins with an ASCII character, whose other byte is zero in UTF-16.
  const halfZero = head.length > 1 && (first === 0) !== (second === 0)
  if (byteOrderMark || halfZero) return { what: 'UTF-16 text', hint: 'Save it as UTF-8.' }
  return signatures.find(({ bytes }) => bytes.every((byte, index) => head[index] === byte))
}

function textFormat(head: string): OtherFormat | undefined {
  const text = head.trimStart()
  if (text.includes('\r') && !text.includes('\n')) {
    return { what: 'text whose lines end with CR alone', hint: 'End each line with LF: tr "\\r" "\\n" < FILE > OTHER' }
  }
  const end = text.indexOf('\n')
  const line = (end === -1 ? text : text.slice(0, end)).trim()
  const more = end !== -1 && text.slice(end).trim() !== ''
  if (text.startsWith('[') && !(more && isJson(line))) {
    return { what: 'a JSON array', hint: "Write its objects one a line: jq -c '.[]' FILE > OTHER" }
  }
  if (more && /[[{,:]$/.test(line) && text.startsWith('{') && !isJson(line.replace(/,$/, ''))) {
    return { what: 'JSON written over several lines', hint: 'Write each object on one line: jq -c . FILE > OTHER' }
  }
  if (/^"?\w+"?(?:[,;\t]"?\w+"?)+$/.test(line)) return { what: 'a table (CSV or TSV)', hint: convert }
  return undefined
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}
