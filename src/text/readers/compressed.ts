import { pipeline } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { inputName } from '../../formats/chunks.ts'
import { LowrankError, messageOf } from '../../util/errors.ts'
import { startsWith } from './foreign.ts'
import { unzstd } from './zstd.ts'

type Chunks = AsyncIterable<Uint8Array>

/** A way in which text is compressed. */
interface Compression {
  readonly name: string
  /** At the end of a file's name, behind the extension of what is compressed. */
  readonly extension: string
  /** How its files begin. */
  readonly signatures: readonly (readonly number[])[]
  /** The bytes that were compressed, as many at a time as a chunk has. Throws what is wrong with them. */
  readonly unpack: (chunks: Chunks) => AsyncGenerator<Uint8Array>
}

export const compressions: readonly Compression[] = [
  { name: 'gzip', extension: '.gz', signatures: [[0x1f, 0x8b]], unpack: gunzip },
  {
    name: 'zstd',
    extension: '.zst',
    // The second one begins what is to be passed over, such as an index in front.
    signatures: [
      [0x28, 0xb5, 0x2f, 0xfd],
      [0x50, 0x2a, 0x4d, 0x18],
    ],
    unpack: unzstd,
  },
]

/** How a file is compressed, by its beginning. */
export function compressionOf(head: Uint8Array): Compression | undefined {
  return compressions.find(({ signatures }) => signatures.some((one) => startsWith(head, one)))
}

/** Unpacks a file. @throws LowrankError `data`: it is damaged. */
export async function* unpacked(
  { name, unpack }: Compression,
  chunks: Chunks,
  path: string,
): AsyncGenerator<Uint8Array> {
  try {
    yield* unpack(chunks)
  } catch (cause) {
    if (cause instanceof LowrankError) throw cause
    throw new LowrankError('data', `${inputName(path)} is ${name}-compressed and damaged: ${messageOf(cause)}`, {
      cause,
      hint: 'It may have been cut on its way: download or copy it again.',
    })
  }
}

async function* gunzip(chunks: Chunks): AsyncGenerator<Uint8Array> {
  const stream = createGunzip({ chunkSize: 256 * 1024 })
  // Where it fails, so does reading.
  pipeline(chunks, stream, () => {})
  yield* stream as AsyncIterable<Uint8Array>
}
