import { LowrankError } from '../../util/errors.ts'
import { inputName } from '../../formats/chunks.ts'
import type { TextHead } from './reader.ts'

/** What a file is that cannot be read, and what to do about it. */
interface Foreign {
  readonly what: string
  readonly hint: string
}

const unpack = 'Unpack it first, or compress it with gzip or zstd, which are read as they are.'
const convert = 'Write its rows as JSON objects, one a line (JSONL), or as Parquet.'
const workbook = 'If it is a workbook of Excel, save it as "CSV UTF-8". Unpack an archive, and name its folder.'

const signatures: readonly (Foreign & { readonly bytes: readonly number[] | string })[] = [
  { bytes: 'BZh', what: 'bzip2-compressed', hint: unpack },
  { bytes: [0xfd, 0x37, 0x7a, 0x58, 0x5a], what: 'xz-compressed', hint: unpack },
  { bytes: [0x04, 0x22, 0x4d, 0x18], what: 'lz4-compressed', hint: unpack },
  { bytes: '7z\xbc\xaf\x27\x1c', what: 'a 7z archive', hint: unpack },
  { bytes: 'PK\x03\x04', what: 'a zip archive, as workbooks of Excel are', hint: workbook },
  { bytes: [0xd0, 0xcf, 0x11, 0xe0], what: 'a document of Microsoft Office', hint: workbook },
  { bytes: 'PARE', what: 'a Parquet file with an encrypted footer', hint: 'Write it without encryption.' },
  { bytes: 'ARROW1', what: 'an Arrow file', hint: convert },
  { bytes: [0xff, 0xff, 0xff, 0xff], what: 'a stream of Arrow', hint: convert },
  { bytes: 'Obj\x01', what: 'an Avro file', hint: convert },
  { bytes: 'ORC', what: 'an ORC file', hint: convert },
  { bytes: 'SQLite format 3', what: 'an SQLite database', hint: convert },
  { bytes: '\x89HDF', what: 'an HDF5 file', hint: convert },
  { bytes: '\x93NUMPY', what: 'an array of NumPy', hint: convert },
  { bytes: '%PDF-', what: 'a PDF document', hint: 'Extract its text first.' },
]

/** The last byte is the first that the protocols of pickle have behind their number. */
const pickle = /^\x80[\x02-\x05][\x95}\]c(K]/

/** Whether bytes begin with others. */
export function startsWith(bytes: Uint8Array, start: readonly number[] | string): boolean {
  const wanted = typeof start === 'string' ? Buffer.from(start, 'latin1') : start
  return wanted.every((byte: number, i: number) => bytes[i] === byte)
}

/** Refuses what is no text, by its beginning. */
export function refuseBinary(path: string, head: Uint8Array): void {
  const [first, second] = head
  const byteOrderMark = (first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff)
  // Data begin with an ASCII character, whose other byte is zero in UTF-16.
  const halfZero = head.length > 1 && (first === 0) !== (second === 0)
  const found = signatures.find(({ bytes }) => startsWith(head, bytes))
  if (found !== undefined) throw isForeign(path, found)
  if (byteOrderMark || halfZero) throw isForeign(path, { what: 'UTF-16 text', hint: 'Save it as UTF-8.' })
  if (pickle.test(Buffer.from(head.subarray(0, 3)).toString('latin1'))) {
    const hint = `Pickle files can run code when they are loaded, so they are not read. ${convert}`
    throw isForeign(path, { what: 'a pickle of Python', hint })
  }
}

/** What a list of records is called in objects around one. */
const listNames = 'data|train|test|valid|validation|rows|examples|records|items|instances|dataset'
const wrapper = new RegExp(
  String.raw`^\{(?:\s*"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[\d.]+|true|false|null)\s*,)*\s*"(${listNames})"\s*:\s*\[`,
)

/** Refuses JSON that is neither an array nor an object a line. */
export function refuseOtherJson(path: string, { text, line, more }: TextHead): void {
  if (!text.startsWith('{') || (more && isJson(line))) return
  const list = wrapper.exec(text)?.[1]
  if (list !== undefined) {
    throw isForeign(path, {
      what: `a JSON object around an array, "${list}"`,
      hint: `Write the objects of that array one a line: jq -c '.${list}[]' FILE > OTHER`,
    })
  }
  if (more && /[[{,:]$/.test(line) && !isJson(line.replace(/,$/, ''))) {
    throw isForeign(path, {
      what: 'JSON written over several lines',
      hint: 'Write each object on one line: jq -c . FILE > OTHER',
    })
  }
}

/** Refuses a text of one line, for what reads line by line. */
export function refuseLoneReturns(path: string, { text }: TextHead): void {
  const inner = text.trimEnd()
  if (!inner.includes('\r') || text.includes('\n')) return
  throw isForeign(path, {
    what: 'text whose lines end with CR alone',
    hint: 'End each line with LF: tr "\\r" "\\n" < FILE > OTHER',
  })
}

export function isForeign(path: string, { what, hint }: Foreign): LowrankError {
  return new LowrankError('data', `${inputName(path)} is ${what}`, { hint })
}

export function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}
