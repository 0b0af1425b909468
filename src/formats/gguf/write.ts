import { internalError, LowrankError } from '../../util/errors.ts'
import { ggmlTypes } from '../../util/ggml-types.ts'
import { elements } from '../../util/shape.ts'
import { writeStreamAtomic } from '../atomic.ts'
import type { GgufContents } from './file.ts'
import { parseGgufHeader } from './header.ts'
import { entry, start, tensorEntry, type TypedMetadata } from './values.ts'

/** A tensor to be written. */
export interface GgufTensorSource {
  readonly name: string
  /** As ggml calls it: `F32`, `Q8_0`, ... */
  readonly type: string
  /** Outermost dimension first. */
  readonly shape: readonly number[]
  /** Hands over its bytes, in as many pieces as it likes, when its turn comes. */
  readonly data: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>
}

/** What is to be a file. */
export interface GgufDraft {
  readonly metadata: TypedMetadata
  readonly tensors: readonly GgufTensorSource[]
}

interface Layout {
  /** All before the data, padded. */
  readonly header: Buffer
  readonly tensors: readonly { readonly source: GgufTensorSource; readonly byteLength: number }[]
  /** Of the whole file. */
  readonly size: number
}

/** Data of a tensor begins at a multiple of this; it is what readers take where a file does not say. */
const alignment = 32
const aligned = (size: number): number => Math.ceil(size / alignment) * alignment
const ids = new Map([...ggmlTypes].map(([id, type]) => [type.name, { id, ...type }]))

function layoutOf({ metadata, tensors }: GgufDraft): Layout {
  let end = 0
  const placed = tensors.map((source) => {
    const { name, type: asked, shape } = source
    const type = ids.get(asked)
    if (type === undefined) throw internalError(`tensor ${name} of type ${asked}`)
    const byteLength = (elements(shape) / type.blockElements) * type.blockBytes
    const offset = end
    end = aligned(end + byteLength)
    return { source, byteLength, entry: tensorEntry(name, shape.toReversed(), type.id, offset) }
  })
  const entries = Object.entries(metadata).map(([key, value]) => entry(key, value))
  const parts = [start(tensors.length, entries.length), ...entries, ...placed.map((one) => one.entry)]
  const length = parts.reduce((total, { byteLength }) => total + byteLength, 0)
  const header = Buffer.concat([...parts, Buffer.alloc(aligned(length) - length)])
  return { header, tensors: placed, size: header.byteLength + end }
}

/**
 * Writes a GGUF file, version 3, whole or not at all (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Tensors are written in
 * the order given, one after the other.
 *
 * @returns the bytes of the file.
 */
export async function writeGguf(path: string, draft: GgufDraft): Promise<number> {
  const { header, tensors, size } = layoutOf(draft)
  await writeStreamAtomic(path, async (write) => {
    await write(header)
    for (const { source, byteLength } of tensors) {
      let done = 0
      await source.data(async (bytes) => {
        done += bytes.byteLength
        if (done <= byteLength) await write(bytes)
      })
      if (done !== byteLength) {
        throw internalError(`${path}: tensor ${source.name}: ${byteLength} bytes expected, ${done} given`)
      }
      const padding = aligned(byteLength) - byteLength
      if (padding > 0) await write(new Uint8Array(padding))
    }
  })
  return size
}

/** What a reader would find in the file, before any of it is written: its header is made and parsed. */
export function readDraft(path: string, draft: GgufDraft): GgufContents {
  const { header, size } = layoutOf(draft)
  const fail = (what: string): never => {
    throw new LowrankError('internal', `internal: ${path} would not be readable: ${what}`)
  }
  // No Buffer: its `slice` is no copy.
  const bytes = Uint8Array.from(header)
  const read = (offset: number, length: number): Uint8Array => bytes.subarray(offset, offset + length)
  const { metadata, tensors } = parseGgufHeader({ path, size, read, fail })
  return {
    path,
    metadata,
    tensors,
    read: async (name) => {
      const pieces: Uint8Array[] = []
      await draft.tensors
        .find((one) => one.name === name)
        ?.data(async (bytes) => void pieces.push(Uint8Array.from(bytes)))
      return Uint8Array.from(Buffer.concat(pieces))
    },
  }
}
