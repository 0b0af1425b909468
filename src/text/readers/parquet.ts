import { close } from 'node:fs'
import { promisify } from 'node:util'
import { brotliDecompressSync, gunzipSync } from 'node:zlib'
import {
  type AsyncBuffer,
  type ColumnMetaData,
  type PageHeader,
  type Compressors,
  type FileMetaData,
  parquetMetadataAsync,
  parquetRead,
  parquetSchema,
  type RowGroup,
  type SchemaTree,
} from 'hyparquet'
import { parquetHeader } from 'hyparquet/src/column.js'
import { compressors } from 'hyparquet-compressors'
import { inputName, standardInput } from '../../formats/chunks.ts'
import { decodeUtf8, notUtf8 } from '../../formats/jsonl.ts'
import { checkPlainFile } from '../../formats/plain-file.ts'
import { fill, openDescriptor } from '../../formats/read-at.ts'
import { LowrankError, messageOf } from '../../util/errors.ts'
import type { Input, RecordEntry } from './reader.ts'
import { hashes, ZstdDecoder } from './zstd.ts'

/**
 * The rows of a Parquet file. One row group at a time is read and kept in memory, as its columns: those that are wanted. The others are keys
 * of the records without a value.
 */
export async function* readParquet({
  path,
  packed,
  wanted,
  onBytes,
}: Pick<Input, 'path' | 'packed' | 'wanted' | 'onBytes'>): AsyncGenerator<RecordEntry> {
  if (packed !== undefined || path === standardInput) {
    const how = packed === undefined ? 'through a pipe' : `${packed}-compressed`
    throw new LowrankError('data', `${inputName(path)} is a Parquet file that comes ${how}`, {
      hint: 'It is not read from its beginning to its end: name the file itself, unpacked.',
    })
  }
  const size = await checkPlainFile(path, { code: 'data' })
  const descriptor = openDescriptor(path, 'data')
  const file: AsyncBuffer = {
    byteLength: size,
    slice: async (start, end = size) => {
      if (!(start >= 0 && start <= end && end <= size))
        throw new Error(`it refers to bytes ${start} to ${end} of ${size}`)
      const bytes = new Uint8Array(end - start)
      await fill(bytes, descriptor, path, 'data', start)
      return bytes.buffer
    },
  }
  try {
    let number = 0
    for await (const columns of rowGroups(file, { wanted, onBytes })) {
      const known = [...columns]
      for (let row = 0; row < columns.rows; row++) {
        const place = { path, unit: 'row', number: ++number } as const
        const faults: string[] = []
        const values = known.map(([name, column]) => [name, column && plain(column[row], faults)] as const)
        yield faults.length > 0 ? { place, error: faults[0]! } : { place, value: Object.fromEntries(values) }
      }
    }
  } catch (cause) {
    if (cause instanceof LowrankError) throw cause
    throw new LowrankError('data', `cannot read ${path} as Parquet: ${reasonOf(cause)}`, {
      cause,
      hint: 'If it was cut or damaged on its way, download or copy it again. Else write it with another program, such as pyarrow.',
    })
  } finally {
    await promisify(close)(descriptor)
  }
}

/** What the package says, where that is about the file. */
function reasonOf(cause: unknown): string {
  if (cause instanceof TypeError || cause instanceof RangeError) return 'it is damaged'
  const message = messageOf(cause).replace(/^parquet /, '')
  return message.includes('footer != PAR1') ? 'it does not end as Parquet does' : message
}

/** The top columns of a row group, by name. */
class Columns extends Map<string, readonly unknown[] | undefined> {
  readonly rows: number

  constructor(rows: number) {
    super()
    this.rows = rows
  }
}

async function* rowGroups(
  file: AsyncBuffer,
  { wanted, onBytes }: Pick<Input, 'wanted' | 'onBytes'>,
): AsyncGenerator<Columns> {
  const metadata = await parquetMetadataAsync(file, { geoparquet: false })
  const schema = parquetSchema(metadata)
  const names = schema.children.map(({ element }) => element.name)
  checkColumns(metadata, leavesOf(schema), file.byteLength)
  const read = wanted?.(names) ?? names
  const checked = await checkedCompressors()
  let rowStart = 0
  for (const group of metadata.row_groups) {
    const columns = new Columns(Number(group.num_rows))
    for (const name of names) columns.set(name, undefined)
    await checkPages(file, group, read)
    const rowEnd = rowStart + columns.rows
    const pieces = new Map<string, unknown[][]>(read.map((name) => [name, []]))
    await parquetRead({
      file,
      metadata,
      rowStart,
      rowEnd,
      columns: [...read],
      compressors: checked,
      // What is not said to be text may be text, or a picture.
      utf8: false,
      parsers,
      geoparquet: false,
      onChunk: ({ columnName, columnData }) => pieces.get(columnName)?.push(columnData as unknown[]),
    })
    for (const [name, parts] of pieces) {
      const values = parts.length === 1 ? parts[0]! : parts.flatMap((part) => Array.from(part))
      if (values.length !== columns.rows) {
        throw new Error(`its column ${JSON.stringify(name)} has ${values.length} values for ${columns.rows} rows`)
      }
      columns.set(name, values)
    }
    onBytes?.(Number(group.total_byte_size ?? 0n))
    yield columns
    rowStart = rowEnd
  }
}

type Path = readonly string[]

/** The paths of the columns that have values. */
function leavesOf({ children, path }: SchemaTree): Path[] {
  return children.length === 0 ? [path] : children.flatMap(leavesOf)
}

/**
 * Refuses row groups without their columns within the file. Where the package finds that itself, it forgets what it has begun to read, and
 * what is thrown there later ends the process.
 */
function checkColumns({ row_groups: groups }: FileMetaData, leaves: readonly Path[], size: number): void {
  const wanted = leaves.map((path) => JSON.stringify(path))
  const twice = wanted.find((path, i) => wanted.indexOf(path) !== i)
  if (twice !== undefined) throw new Error(`it has two columns ${twice}`)
  for (const { columns, num_rows: rows } of groups) {
    const found = columns.map(({ meta_data: meta }) => JSON.stringify(meta?.path_in_schema))
    if (found.join() !== wanted.join())
      throw new Error(`a row group has the columns ${found.join()}, not ${wanted.join()}`)
    if (rows < 0n || rows > BigInt(Number.MAX_SAFE_INTEGER)) throw new Error(`a row group has ${rows} rows`)
    for (const { meta_data: meta } of columns) {
      const { start, end } = rangeOf(meta!)
      if (!(start >= 4 && start <= end && end <= size))
        throw new Error(`a column has the bytes ${start} to ${end} of ${size}`)
    }
  }
}

function rangeOf(meta: ColumnMetaData): { readonly start: number; readonly end: number } {
  const start = Number(meta.dictionary_page_offset || meta.data_page_offset)
  return { start, end: start + Number(meta.total_compressed_size) }
}

/** Refuses pages that are not those of their column: by sizes below zero, and by what is not there, the package goes round in circles. */
async function checkPages(file: AsyncBuffer, { columns }: RowGroup, read: readonly string[]): Promise<void> {
  for (const { meta_data: meta } of columns) {
    if (!read.includes(meta!.path_in_schema[0]!)) continue
    const { start, end } = rangeOf(meta!)
    const reader = { view: new DataView(await file.slice(start, end)), offset: 0 }
    if (meta!.num_values > maxValues) throw new Error(`a column has ${meta!.num_values} values in a row group`)
    let values = 0
    while (values < Number(meta!.num_values)) {
      const header = parquetHeader(reader)
      reader.offset += header.compressed_page_size
      if (!isSound(header)) throw new Error('the header of a page is damaged')
      if (reader.offset > reader.view.byteLength) throw new Error('a page goes on behind the end of its column')
      values += (header.data_page_header ?? header.data_page_header_v2)?.num_values ?? 0
    }
    if (values > Number(meta!.num_values))
      throw new Error(`a column has ${values} values in place of ${meta!.num_values}`)
  }
}

function isSound(header: PageHeader): boolean {
  const { compressed_page_size: packed, uncompressed_page_size: unpacked } = header
  const { data_page_header: data, data_page_header_v2: v2, dictionary_page_header: dictionary } = header
  const isCount = (count: number | undefined, most: number): boolean =>
    Number.isInteger(count) && count! >= 0 && count! <= most
  const { definition_levels_byte_length: definitions, repetition_levels_byte_length: repetitions } = v2 ?? {}
  return (
    isCount(packed, maxPage) &&
    isCount(unpacked, maxPage) &&
    (data === undefined || (isCount(data.num_values, Infinity) && data.encoding !== undefined)) &&
    (dictionary === undefined || isCount(dictionary.num_values, unpacked)) &&
    (v2 === undefined ||
      (v2.encoding !== undefined &&
        isCount(v2.num_values, Infinity) &&
        isCount(v2.num_nulls, v2.num_values) &&
        isCount(v2.num_rows, v2.num_values) &&
        isCount(definitions, packed) &&
        isCount(repetitions, packed - definitions!)))
  )
}

/** Bytes of a page, where writers aim at one million. */
const maxPage = 2 ** 30
/** Of a column in a row group, where writers aim at one million rows. */
const maxValues = 2n ** 28n

/** Stands for a text that is no UTF-8. */
const noText = Symbol('no text')

/** A value as JSON could have it, but for bytes that are no text. */
function plain(value: unknown, faults: string[]): unknown {
  if (value === undefined || value === null) return null
  if (value === noText) {
    faults.push(notUtf8)
    return null
  }
  if (typeof value === 'bigint') return exact(value)
  if (value instanceof Uint8Array) return decodeUtf8(value) ?? value
  if (Array.isArray(value)) return value.map((one) => plain(one, faults))
  if (typeof value !== 'object') return value
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, plain(one, faults)]))
}

/** A number where it is exact. */
function exact(value: bigint): number | string {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : String(value)
}

type Parsed<T> = (value: T | undefined) => unknown

const orNull =
  <T>(parse: (value: T) => unknown): Parsed<T> =>
  (value) =>
    value === undefined || value === null ? null : parse(value)

const text = (bytes: Uint8Array): string | typeof noText => decodeUtf8(bytes) ?? noText

/** A time in ISO 8601, with as many digits behind the second as its unit has. */
function time(value: bigint, perSecond: bigint): string {
  const seconds = value / perSecond - (value % perSecond < 0n ? 1n : 0n)
  const rest = value - seconds * perSecond
  const date = new Date(Number(seconds) * 1000)
  if (Number.isNaN(date.getTime())) return String(value)
  const digits = rest === 0n ? '' : `.${String(rest).padStart(String(perSecond).length - 1, '0')}`
  return `${date.toISOString().slice(0, -'.000Z'.length)}${digits}Z`
}

function date(days: number): string {
  const found = new Date(days * 86_400_000)
  return Number.isNaN(found.getTime()) ? String(days) : found.toISOString().slice(0, -'T00:00:00.000Z'.length)
}

const parsers = {
  stringFromBytes: orNull(text),
  jsonFromBytes: orNull((bytes: Uint8Array) => {
    const json = text(bytes)
    try {
      return typeof json === 'string' ? (JSON.parse(json) as unknown) : json
    } catch {
      return json
    }
  }),
  dateFromDays: orNull(date),
  timestampFromMilliseconds: orNull((value: bigint) => time(value, 1000n)),
  timestampFromMicroseconds: orNull((value: bigint) => time(value, 1_000_000n)),
  timestampFromNanoseconds: orNull((value: bigint) => time(value, 1_000_000_000n)),
}

/** Those that check what they unpack, and do not unpack more than a page says it has, where there are any. */
async function checkedCompressors(): Promise<Compressors> {
  const api = await hashes()
  return {
    ...compressors,
    GZIP: (input, length) => gunzipSync(input, { maxOutputLength: Math.max(length, 1) }),
    BROTLI: (input, length) => brotliDecompressSync(input, { maxOutputLength: Math.max(length, 1) }),
    ZSTD: (input, length) => {
      const decoder = new ZstdDecoder(api)
      const pieces: Uint8Array[] = []
      let bytes = 0
      for (const piece of decoder.push(input)) {
        bytes += piece.byteLength
        if (bytes > length) throw new Error(`a page has more than the ${length} bytes that it says`)
        pieces.push(piece)
      }
      decoder.end()
      return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces)
    },
  }
}
