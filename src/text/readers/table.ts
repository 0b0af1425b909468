import { maxRecordBytes } from '../../formats/chunks.ts'
import { decodeUtf8, hasByteOrderMark, notUtf8 } from '../../formats/jsonl.ts'
import { LowrankError } from '../../util/errors.ts'
import { type Input, placeText, type RecordEntry } from './reader.ts'

/** A row of a table, its line that of its beginning. */
type Row =
  { readonly line: number; readonly values: readonly string[] } | { readonly line: number; readonly error: string }

const [lineFeed, carriageReturn, quote] = [0x0a, 0x0d, 0x22] as const

/**
 * Reads a table with a header, as RFC 4180 describes CSV: values are texts. Lines end with LF, CRLF or CR; blank ones are passed over. As
 * Python has it, a quote within a value that does not begin with one is a character as others are.
 *
 * This is no package: what there is names the line in which a row ends, not that of a quote that never does, and puts other characters in
 * place of what is no UTF-8.
 */
export async function* readTable(
  { path, chunks }: Pick<Input, 'path' | 'chunks'>,
  delimiter: string,
): AsyncGenerator<RecordEntry> {
  let header: readonly string[] | undefined
  for await (const row of rowsOf(path, chunks, delimiter.charCodeAt(0))) {
    const place = { path, unit: 'line', number: row.line } as const
    if (header === undefined) {
      if ('error' in row) throw new LowrankError('data', `${placeText(place)}: the header is ${row.error}`)
      header = row.values
      checkHeader(header, placeText(place))
    } else if ('error' in row) {
      yield { place, error: row.error }
    } else if (row.values.length !== header.length) {
      const count = row.values.length === 1 ? '1 value' : `${row.values.length} values`
      yield { place, error: `${count}, where the header has ${header.length}` }
    } else {
      const { values } = row
      yield { place, value: Object.fromEntries(header.map((name, i) => [name, values[i]])) }
    }
  }
}

function checkHeader(names: readonly string[], where: string): void {
  const empty = names.findIndex((name) => name.trim() === '')
  if (empty !== -1) {
    throw new LowrankError('data', `${where}: column ${empty + 1} of the header has no name`, {
      hint:
        empty === 0
          ? 'pandas writes its index there: to_csv(PATH, index=False) leaves it out.'
          : 'The first line has to name each column.',
    })
  }
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined) {
    throw new LowrankError('data', `${where}: the header names two columns ${JSON.stringify(twice)}`, {
      hint: 'The first line has to name each column, each by another name.',
    })
  }
}

async function* rowsOf(path: string, chunks: AsyncIterable<Uint8Array>, delimiter: number): AsyncGenerator<Row> {
  const row = new RowBuilder()
  let state: 'start' | 'plain' | 'quoted' | 'closed' = 'start'
  let line = 1
  /** Where the open quote is. */
  let quoteLine = 0
  let afterReturn = false
  let first = true
  for await (const chunk of chunks) {
    let i = first && hasByteOrderMark(chunk) ? 3 : 0
    first = false
    while (i < chunk.length) {
      const byte = chunk[i]!
      if (state === 'quoted') {
        const end = chunk.indexOf(quote, i)
        const piece = chunk.subarray(i, end === -1 ? chunk.length : end)
        for (const one of piece) {
          if (one === carriageReturn || (one === lineFeed && !afterReturn)) line++
          afterReturn = one === carriageReturn
        }
        row.take(piece)
        if (row.isTooLong) throw openQuote(path, quoteLine, `goes on for more than ${maxRecordBytes} bytes`)
        i += piece.length
        if (end === -1) continue
        i++
        afterReturn = false
        state = 'closed'
        continue
      }
      i++
      const followsReturn = afterReturn
      afterReturn = byte === carriageReturn
      if (byte === lineFeed && followsReturn) continue
      if (byte === lineFeed || byte === carriageReturn) {
        row.endValue()
        const found = row.end()
        if (found !== undefined) yield found
        row.begin(++line)
        state = 'start'
      } else if (byte === delimiter) {
        row.endValue()
        state = 'start'
      } else if (byte === quote && state !== 'plain') {
        // Two quotes within quotes are one of the value.
        if (state === 'closed') row.take(chunk.subarray(i - 1, i))
        else quoteLine = line
        row.isQuoted = true
        state = 'quoted'
      } else {
        if (state === 'closed') row.refuse('text follows a closing quote; a quote within quotes is written twice')
        const begin = i - 1
        while (i < chunk.length && !ends(chunk[i]!, delimiter)) i++
        row.take(chunk.subarray(begin, i))
        state = 'plain'
      }
    }
  }
  if (state === 'quoted') throw openQuote(path, quoteLine, 'has no end')
  row.endValue()
  const found = row.end()
  if (found !== undefined) yield found
}

function ends(byte: number, delimiter: number): boolean {
  return byte === delimiter || byte === lineFeed || byte === carriageReturn
}

function openQuote(path: string, line: number, what: string): LowrankError {
  return new LowrankError(
    'data',
    `${placeText({ path, unit: 'line', number: line })}: the quote that begins here ${what}`,
    {
      hint: 'Close it; a quote that belongs to the text is written twice, within quotes.',
    },
  )
}

const valueBytes = 16
const nothing = new Uint8Array(0)

/** A row as it is read. Its memory is bounded; what is wrong with it first counts. */
class RowBuilder {
  #values: string[] = []
  #pieces: Uint8Array[] = []
  #bytes = 0
  #line = 1
  #error: string | undefined
  /** Whether it has a quoted value: a row of one that is empty is no blank line then. */
  isQuoted = false

  begin(line: number): void {
    ;[this.#values, this.#pieces, this.#bytes, this.#line] = [[], [], 0, line]
    ;[this.#error, this.isQuoted] = [undefined, false]
  }

  get isTooLong(): boolean {
    return this.#bytes > maxRecordBytes
  }

  take(piece: Uint8Array): void {
    this.#bytes += piece.byteLength
    this.#pieces.push(piece)
    if (!this.isTooLong) return
    this.refuse(`longer than ${maxRecordBytes} bytes`)
    ;[this.#values, this.#pieces] = [[], []]
  }

  refuse(error: string): void {
    this.#error ??= error
  }

  endValue(): void {
    // An empty one takes memory, too.
    this.#bytes += valueBytes
    if (this.isTooLong) return this.take(nothing)
    const [first = nothing] = this.#pieces
    const value = decodeUtf8(this.#pieces.length > 1 ? Buffer.concat(this.#pieces) : first)
    if (value === undefined) this.refuse(notUtf8)
    else this.#values.push(value)
    this.#pieces = []
  }

  /** The row; undefined where it is a blank line. */
  end(): Row | undefined {
    if (this.#error !== undefined) return { line: this.#line, error: this.#error }
    const [only = ''] = this.#values
    if (this.#values.length === 1 && only.trim() === '' && !this.isQuoted) return undefined
    return { line: this.#line, values: this.#values }
  }
}
