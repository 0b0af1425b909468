import { Decompress } from 'fzstd'
import xxhash, { type XXHashAPI } from 'xxhash-wasm'

/** Bytes that a frame may look back, as Zstandard's own tool has it; a header can claim any number. */
const maxWindow = 128 * 2 ** 20
const maxBlock = 128 * 1024

const magic = 0xfd2fb528

/**
 * What Zstandard has compressed, a block at a time (RFC 8878): `fzstd` unpacks the blocks, and what is around them is read here. By itself it
 * would unpack all blocks that it is given at once, take what a header claims for true, and pass over checksums.
 */
export async function* unzstd(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const decoder = new ZstdDecoder(await hashes())
  for await (const chunk of chunks) yield* decoder.push(chunk)
  decoder.end()
}

let loaded: Promise<XXHashAPI> | undefined

/** What makes checksums, compiled once. */
export function hashes(): Promise<XXHashAPI> {
  return (loaded ??= xxhash())
}

/** The inside of frames one behind the other. */
export class ZstdDecoder {
  readonly #hashes: Pick<XXHashAPI, 'create64'>
  #input: Buffer = Buffer.alloc(0)
  #frame: Frame | undefined
  /** Bytes of a frame to be passed over. */
  #skip = 0

  constructor(hashes: Pick<XXHashAPI, 'create64'>) {
    this.#hashes = hashes
  }

  *push(chunk: Uint8Array): Generator<Uint8Array> {
    this.#input = this.#input.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#input, chunk])
    for (;;) {
      const skipped = this.#take(Math.min(this.#skip, this.#input.length))
      this.#skip -= skipped!.length
      if (this.#skip > 0) return
      if (this.#frame === undefined) {
        if (!this.#begin()) return
        continue
      }
      const bytes = this.#take(this.#frame.needs(this.#input))
      if (bytes === undefined) return
      yield* this.#frame.push(bytes)
      if (this.#frame.isDone) this.#frame = undefined
    }
  }

  end(): void {
    if (this.#input.length > 0 || this.#skip > 0 || this.#frame !== undefined) throw new Error('it ends too early')
  }

  #take(bytes: number): Buffer | undefined {
    if (this.#input.length < bytes) return undefined
    const taken = this.#input.subarray(0, bytes)
    this.#input = this.#input.subarray(bytes)
    return taken
  }

  /** Reads the header of a frame; whether it was there. */
  #begin(): boolean {
    const input = this.#input
    if (input.length < 8) return false
    const start = input.readUInt32LE()
    if (start >>> 4 === 0x184d2a5) {
      this.#skip = 8 + input.readUInt32LE(4)
      return true
    }
    if (start !== magic) throw new Error('what follows a frame is none')
    const [descriptor, window] = [input[4]!, input[5]!]
    const isSingle = (descriptor & 0x20) !== 0
    const idBytes = [0, 1, 2, 4][descriptor & 3]!
    const sizeBytes = [isSingle ? 1 : 0, 2, 4, 8][descriptor >> 6]!
    const sizeAt = (isSingle ? 5 : 6) + idBytes
    const header = this.#take(sizeAt + sizeBytes)
    if (header === undefined) return false
    const size = sizeOf(header.subarray(sizeAt))
    const base = 2 ** (10 + (window >> 3))
    const windowBytes = isSingle ? size! : base + (base / 8) * (window & 7)
    if ((descriptor & 8) !== 0) throw new Error('a header is of a later version')
    if (windowBytes > maxWindow)
      throw new Error(`it needs ${windowBytes} bytes of memory, at most ${maxWindow} are given`)
    if (header.subarray(sizeAt - idBytes, sizeAt).some((byte) => byte !== 0)) throw new Error('it needs a dictionary')
    const hash = (descriptor & 4) === 0 ? undefined : this.#hashes.create64()
    header[4] = descriptor & ~4
    this.#frame = new Frame(header, { size, hash })
    return true
  }
}

/** Of the content of a frame; undefined where the header does not say it. */
function sizeOf(bytes: Buffer): number | undefined {
  if (bytes.length === 0) return undefined
  if (bytes.length === 8) return Number(bytes.readBigUInt64LE())
  // 2 bytes would be of no use for less.
  return bytes.readUIntLE(0, bytes.length) + (bytes.length === 2 ? 256 : 0)
}

interface FrameOptions {
  readonly size: number | undefined
  /** Of a frame with a checksum. */
  readonly hash: ReturnType<XXHashAPI['create64']> | undefined
}

class Frame {
  readonly #options: FrameOptions
  readonly #decompress: Decompress
  #content: Uint8Array[] = []
  #bytes = 0
  #state: 'blocks' | 'checksum' | 'done' = 'blocks'

  constructor(header: Uint8Array, options: FrameOptions) {
    this.#options = options
    this.#decompress = new Decompress((bytes) => this.#content.push(bytes))
    this.#decompress.push(header)
  }

  get isDone(): boolean {
    return this.#state === 'done'
  }

  /** Bytes of what comes next, or more than there are. */
  needs(input: Buffer): number {
    if (this.#state === 'checksum') return 4
    if (input.length < 3) return 3
    const header = input.readUIntLE(0, 3)
    const [type, size] = [(header >> 1) & 3, header >> 3]
    if (type === 3 || size > maxBlock) throw new Error('a block is none')
    return 3 + (type === 1 ? 1 : size)
  }

  *push(bytes: Buffer): Generator<Uint8Array> {
    const { size, hash } = this.#options
    if (this.#state === 'checksum') {
      if (Number(hash!.digest() & 0xffffffffn) !== bytes.readUInt32LE()) throw new Error('its checksum is wrong')
      this.#state = 'done'
      return
    }
    const isLast = (bytes[0]! & 1) === 1
    this.#decompress.push(bytes, isLast)
    const content = this.#content
    this.#content = []
    for (const piece of content) {
      this.#bytes += piece.byteLength
      hash?.update(piece)
      if (piece.byteLength > 0) yield piece
    }
    if (!isLast) return
    if (size !== undefined && size !== this.#bytes) throw new Error(`it has ${this.#bytes} bytes in place of ${size}`)
    this.#state = hash === undefined ? 'done' : 'checksum'
  }
}
