import { extname } from 'node:path'
import { inputName, readChunks } from '../../formats/chunks.ts'
import { type Line, parseJsonl, readTextLines } from '../../formats/jsonl.ts'
import { LowrankError } from '../../util/errors.ts'
import { compressionOf, compressions, unpacked } from './compressed.ts'
import { isForeign, isJson, refuseBinary, refuseLoneReturns, refuseOtherJson, startsWith } from './foreign.ts'
import { readJsonArray } from './json-array.ts'
import type { Input, RecordEntry, TextHead } from './reader.ts'
import { readTable } from './table.ts'

/** What reads a format. */
export interface Reader {
  /** As messages call what it reads. */
  readonly name: string
  /** Those of its files. Several formats may share one: the content decides. */
  readonly extensions: readonly string[]
  /** How all its files begin. A format without this is text. */
  readonly signature?: string
  /** Whether a text shows by its beginning that it is of this format. A format without this is known by its extension alone. */
  readonly recognise?: (head: TextHead) => boolean
  /** Whether what another reader recognises may be of this one. */
  readonly takes?: (other: Reader) => boolean
  readonly read: (input: Input) => AsyncGenerator<RecordEntry>
}

const json = ['.jsonl', '.ndjson', '.json']
const isOfJson = ({ extensions }: Reader): boolean => json.includes(extensions[0] ?? '')

/** The formats that are read. Of those with the extension of a file that are not recognised, the first one reads it. */
export const readers: readonly Reader[] = [
  {
    name: 'JSONL',
    extensions: json,
    recognise: ({ text, line, more }) => /^\{\s*["}]/.test(text) || (more && text.startsWith('[') && isJson(line)),
    read: (input) => inLines(input, parseJsonl(input.chunks)),
  },
  {
    name: 'a JSON array',
    extensions: json.toReversed(),
    recognise: ({ text, line, more }) => /^\[\s*(?:[{[\]"]|$)/.test(text) && !(more && isJson(line)),
    read: readJsonArray,
  },
  {
    name: 'a table with commas (CSV)',
    extensions: ['.csv'],
    recognise: ({ line }) => /^"?\w+"?(?:([,;])"?\w+"?)(?:\1"?\w+"?)*$/.test(line),
    // Programs write semicolons where numbers have decimal commas.
    read: (input) => readTable(input, /^[^,]*;/.test(input.head.line) ? ';' : ','),
  },
  {
    name: 'a table with tabs (TSV)',
    extensions: ['.tsv'],
    recognise: ({ line }) => /^"?\w+"?(?:\t"?\w+"?)+$/.test(line),
    read: (input) => readTable(input, '\t'),
  },
  {
    name: 'plain text',
    extensions: ['.txt'],
    takes: (other) => !isOfJson(other),
    read: (input) => inLines(input, readTextLines(input.chunks), (text) => ({ text })),
  },
  {
    name: 'Parquet',
    extensions: ['.parquet'],
    signature: 'PAR1',
    // Its packages are loaded by who needs them.
    read: async function* (input) {
      yield* (await import('./parquet.ts')).readParquet(input)
    },
  },
]

/** Bytes that show what a file is. */
const headBytes = 64 * 1024

export interface ReadOptions {
  readonly cancelled?: (() => boolean) | undefined
  /** Chooses, among the columns of a Parquet file, those that are read; undefined: all. */
  readonly wanted?: Input['wanted']
  /** Is told of bytes of the file, as it is stored, when they have been read. */
  readonly onBytes?: ((count: number) => void) | undefined
}

/**
 * The records of a file, of a pipe or of standard input (`-`), in order. A malformed record is an error among them, for the caller to count.
 * The content decides what is read, and the extension where that leaves it open. Memory is bounded by the largest record.
 *
 * @throws LowrankError `data`: it cannot be read at all, by name with what it is in place of what it should be; `cancelled`.
 */
export async function* readRecords(
  path: string,
  { cancelled, wanted, onBytes }: ReadOptions = {},
): AsyncGenerator<RecordEntry> {
  const source = readChunks(path, { cancelled, onBytes })
  try {
    const begun = await beginningOf(source)
    const compression = compressionOf(begun.head)
    if (compression === undefined) yield* readContent(path, begun, { wanted, onBytes })
    else {
      const content = unpacked(compression, begun.chunks, path)
      try {
        yield* readContent(path, await beginningOf(content), { packed: compression.name })
      } finally {
        await content.return(undefined)
      }
    }
  } finally {
    await source.return(undefined)
  }
}

interface Begun {
  readonly head: Uint8Array
  /** All of it, from its beginning. */
  readonly chunks: AsyncGenerator<Uint8Array>
}

/** Looks at the beginning of what is read once. */
async function beginningOf(chunks: AsyncGenerator<Uint8Array>): Promise<Begun> {
  const read: Uint8Array[] = []
  for (let bytes = 0; bytes < headBytes; bytes += read.at(-1)!.byteLength) {
    const { done, value } = await chunks.next()
    if (done === true) break
    read.push(value)
  }
  const all = read.length === 1 ? read[0]! : Buffer.concat(read)
  const whole = async function* (): AsyncGenerator<Uint8Array> {
    yield all
    yield* chunks
  }
  return { head: all.subarray(0, headBytes), chunks: whole() }
}

async function* readContent(
  path: string,
  { head, chunks }: Begun,
  about: Pick<Input, 'packed' | 'wanted' | 'onBytes'>,
): AsyncGenerator<RecordEntry> {
  const again = compressionOf(head)
  if (again !== undefined) {
    throw isForeign(path, { what: `compressed more than once (${again.name} within)`, hint: 'Unpack it once.' })
  }
  const input: Input = { path, chunks, head: headOf(head), ...about }
  const binary = readers.find(({ signature }) => signature !== undefined && startsWith(head, signature))
  if (binary !== undefined) {
    yield* binary.read(input)
    return
  }
  refuseBinary(path, head)
  const isEmpty = input.head.text === '' && head.byteLength < headBytes
  const named = readers.filter(({ extensions }) => extensions.includes(extensionOf(path)))
  const [first] = named
  if (first?.signature !== undefined && (isEmpty || recognised(input.head) === undefined)) {
    throw new LowrankError('data', `${inputName(path)} is no ${first.name} file${isEmpty ? ': it is empty' : ''}`, {
      hint: `Files of ${first.name} begin with ${first.signature}. Was it cut, or downloaded as a page that says why it is not there?`,
    })
  }
  // A text of nothing is one of no records, whatever its name.
  if (!isEmpty) yield* chooseReader(path, named, input.head).read(input)
}

function recognised(head: TextHead): Reader | undefined {
  return readers.find(({ recognise }) => recognise?.(head) === true)
}

function headOf(head: Uint8Array): TextHead {
  const text = Buffer.from(head)
    .toString('utf8')
    .replace(/^\ufeff/, '')
    .trimStart()
  const [line = ''] = text.split(/[\r\n]/, 1)
  return { text, line: line.trimEnd(), more: text.slice(line.length).trim() !== '' }
}

/** The reader of a text. @throws LowrankError `data`: its name says one thing and its content another, or neither says anything. */
function chooseReader(path: string, named: readonly Reader[], head: TextHead): Reader {
  const found = recognised(head)
  const [first] = named
  if (found === undefined || first === undefined) {
    const reader = found ?? first
    if (reader !== undefined) return reader
    throw new LowrankError('data', `${inputName(path)}: neither its beginning nor its name says what it is`, {
      hint: `Its name has to end with what it is: ${knownExtensions.join(', ')}. Without a name, JSON and tables are recognised.`,
    })
  }
  if (named.includes(found)) return found
  if (first.takes?.(found) === true) return first
  throw new LowrankError('data', `${inputName(path)} holds ${found.name}, which its name contradicts`, {
    hint: `Give it a name that ends with ${found.extensions[0]}.`,
  })
}

/** Of files that are read. */
export const knownExtensions: readonly string[] = [...new Set(readers.flatMap(({ extensions }) => extensions))]

/** The extension that says what a file is, in small letters: that before `.gz` and the like. */
export function extensionOf(path: string): string {
  const name = path.toLowerCase()
  const packed = compressions.find(({ extension }) => name.endsWith(extension))
  return extname(packed === undefined ? name : name.slice(0, -packed.extension.length))
}

async function* inLines(
  { path, head }: Input,
  lines: AsyncIterable<Line<unknown>>,
  valueOf = (value: unknown): unknown => value,
): AsyncGenerator<RecordEntry> {
  refuseOtherJson(path, head)
  refuseLoneReturns(path, head)
  for await (const found of lines) {
    const place = { path, unit: 'line', number: found.line } as const
    yield 'error' in found ? { place, error: found.error } : { place, value: valueOf(found.value) }
  }
}
