import { maxRecordBytes } from '../../formats/chunks.ts'
import { decodeUtf8, hasByteOrderMark, jsonOf, notUtf8 } from '../../formats/jsonl.ts'
import { LowrankError } from '../../util/errors.ts'
import { type Input, placeText, type Place, type RecordEntry } from './reader.ts'

/** The bytes of what separates JSON. */
const [quote, comma, backslash, openList, closeList, openObject, closeObject] = [
  0x22, 0x2c, 0x5c, 0x5b, 0x5d, 0x7b, 0x7d,
] as const

/** Cuts an array of JSON into its elements, one in memory at a time: what an element is, is left to `JSON.parse`. */
export async function* readJsonArray({ path, chunks }: Pick<Input, 'path' | 'chunks'>): AsyncGenerator<RecordEntry> {
  let state = 'before' as 'before' | 'inside' | 'after'
  let [depth, inText, escaped] = [0, false, false]
  let number = 0
  let element = new Element()
  const place = (): Place => ({ path, unit: 'row', number })
  const finish = (isLast: boolean): RecordEntry[] => {
    const found = element
    element = new Element()
    // What stands in an empty array.
    if (isLast && number === 0 && found.isBlank) return []
    number++
    return [{ place: place(), ...found.value() }]
  }
  let first = true
  for await (const chunk of chunks) {
    let start = first && hasByteOrderMark(chunk) ? 3 : 0
    first = false
    for (let i = start; i < chunk.length; i++) {
      const byte = chunk[i]!
      if (inText) {
        if (escaped) escaped = false
        else if (byte === backslash) escaped = true
        else if (byte === quote) inText = false
      } else if (state !== 'inside') {
        if (isBlank(byte)) continue
        if (state === 'after') {
          throw new LowrankError('data', `${placeText(place())}: more follows the end of the JSON array`, {
            hint: 'One array is expected, or JSON objects, one a line (JSONL).',
          })
        }
        // By its beginning it is an array.
        state = 'inside'
        start = i + 1
      } else if (byte === quote) inText = true
      else if (byte === openObject || byte === openList) depth++
      else if ((byte === closeObject || byte === closeList) && depth > 0) depth--
      else if (byte === comma && depth === 0) {
        element.take(chunk.subarray(start, i))
        yield* finish(false)
        start = i + 1
      } else if (byte === closeList) {
        element.take(chunk.subarray(start, i))
        yield* finish(true)
        state = 'after'
      }
    }
    if (state === 'inside') element.take(chunk.subarray(start))
  }
  if (state === 'after') return
  number++
  throw new LowrankError('data', `${placeText(place())}: the file ends within this row, before the JSON array does`, {
    hint: 'It was cut, or a quote or bracket is missing in that row.',
  })
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}

/** The bytes of an element as they come. What lies past the limit is not kept in memory. */
class Element {
  #pieces: Uint8Array[] = []
  #bytes = 0

  take(piece: Uint8Array): void {
    this.#bytes += piece.byteLength
    if (this.#bytes > maxRecordBytes) this.#pieces = []
    else this.#pieces.push(piece)
  }

  get isBlank(): boolean {
    return this.#bytes <= maxRecordBytes && this.#pieces.every((piece) => piece.every(isBlank))
  }

  value(): { readonly value: unknown } | { readonly error: string } {
    if (this.#bytes > maxRecordBytes) return { error: `longer than ${maxRecordBytes} bytes` }
    const text = decodeUtf8(this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces))
    return text === undefined ? { error: notUtf8 } : jsonOf(text)
  }
}
