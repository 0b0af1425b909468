import { createHash, type Hash } from 'node:crypto'
import { mkdir, open, rename, rm, type FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import { syncFolder, writeError } from '../formats/atomic.ts'
import { LowrankError } from '../util/errors.ts'
import { type Asked, authorization, hostOf, refusal, retried } from './client.ts'

/** A file of a commit. */
export interface HubFile {
  readonly name: string
  readonly size: number
  /** SHA-256 of a large file, kept apart from git; of another what git calls it by, SHA-1 of its length and content. */
  readonly hash: string
}

interface BlobOptions {
  readonly url: string
  readonly file: HubFile
  /** Where the content goes once it is whole. */
  readonly path: string
  readonly asked: Asked
  /** Receives the bytes that there are more, or, below zero, that were given up; and whether they came now. */
  readonly onBytes: (bytes: number, came: boolean) => void
}

/** Milliseconds without a byte after which a connection counts as broken. */
const silence = 30_000

/**
 * Downloads a content, goes on with what an earlier try has left, and checks its hash. It appears whole or not at all. One process at a time
 * may do so for a path.
 *
 * @throws LowrankError `model`, `io`: it was refused, does not come, is another than it should be, or cannot be written.
 */
export async function downloadBlob(options: BlobOptions): Promise<void> {
  const { path, file, asked } = options
  await mkdir(dirname(path), { recursive: true })
  const partial = partialOf(path)
  const blob = await Partial.open(partial, options)
  try {
    const adopted = blob.bytes > 0
    await receive(blob, options)
    // What was left may have been damaged by whatever ended that try.
    if (blob.digest() !== file.hash && adopted) {
      await blob.restart()
      await receive(blob, options)
    }
    const found = blob.digest()
    if (found !== file.hash) {
      await rm(partial, { force: true })
      const kind = file.hash.length === 64 ? 'SHA-256' : 'SHA-1 (of git)'
      throw new LowrankError(
        'io',
        `${file.name} of ${asked.id} was damaged on its way from ${hostOf(asked.endpoint)}: its ${kind} is ${found}, that of the hub ${file.hash}`,
        { hint: 'Try again. If it happens each time, a proxy or mirror (HF_ENDPOINT) serves another file.' },
      )
    }
    await blob.sync()
  } finally {
    await blob.close()
  }
  await rename(partial, path)
  await syncFolder(dirname(path))
}

/** Where a content is while it comes: apart from what Python's library is writing. */
export function partialOf(path: string): string {
  return `${path}.lowrank.incomplete`
}

/** Asks for what is missing until it is there. */
async function receive(blob: Partial, options: BlobOptions): Promise<void> {
  const { file, asked } = options
  if (blob.bytes > file.size) await blob.restart()
  await retried(
    asked,
    async () => {
      while (blob.bytes < file.size) {
        const before = blob.bytes
        await request(blob, options)
        if (blob.bytes === before) throw new Error('the answer is empty')
      }
    },
    // Half a minute without a network is bridged.
    { attempts: 9, progress: () => blob.received },
  )
}

/** One answer of the server, as far as it comes. */
async function request(blob: Partial, { url, file, asked }: BlobOptions): Promise<void> {
  const stalled = new AbortController()
  const limit = setTimeout(() => stalled.abort(new Error(`nothing came for ${silence / 1000} s`)), silence)
  try {
    const from = blob.bytes
    // A part is one of the bytes as they are.
    const range = { 'accept-encoding': 'identity', ...(from === 0 ? {} : { range: `bytes=${from}-` }) }
    const signal = AbortSignal.any([asked.signal, stalled.signal])
    const response = await fetch(url, { headers: { ...authorization(asked), ...range }, signal })
    if (response.status === 416) {
      await response.body?.cancel()
      await blob.restart()
      return
    }
    if (!response.ok) throw await refusal(response, asked)
    const begin = response.status === 206 ? /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1] : '0'
    if (Number(begin) !== from) {
      if (response.status === 206)
        throw new LowrankError('io', `${hostOf(response.url)} sends another part of ${file.name} than was asked for`)
      await blob.restart()
    }
    for await (const bytes of (response.body ?? []) as AsyncIterable<Uint8Array>) {
      limit.refresh()
      if (blob.bytes + bytes.byteLength > file.size) {
        throw new LowrankError(
          'io',
          `${hostOf(response.url)} sends more of ${file.name} than the ${file.size} bytes it has on the hub`,
        )
      }
      await blob.add(bytes)
    }
  } finally {
    clearTimeout(limit)
  }
}

/** A content that is not whole yet, and the hash of what there is of it. */
class Partial {
  /** Bytes that came since it was opened, those that were given up included. */
  received = 0
  bytes = 0
  readonly #path: string
  readonly #file: FileHandle
  readonly #options: BlobOptions
  #hash: Hash

  private constructor(path: string, file: FileHandle, options: BlobOptions) {
    this.#path = path
    this.#file = file
    this.#options = options
    this.#hash = this.#begin()
  }

  static async open(path: string, options: BlobOptions): Promise<Partial> {
    const file = await open(path, 'a+').catch((error: Error) => {
      throw writeError(path, error)
    })
    const partial = new Partial(path, file, options)
    try {
      await partial.#adopt()
      return partial
    } catch (error) {
      await file.close()
      throw error
    }
  }

  async add(bytes: Uint8Array): Promise<void> {
    await this.#file.appendFile(bytes).catch((error: Error) => {
      throw writeError(this.#path, error)
    })
    this.received += bytes.byteLength
    this.#count(bytes, true)
  }

  async restart(): Promise<void> {
    await this.#file.truncate(0)
    this.#options.onBytes(-this.bytes, false)
    this.bytes = 0
    this.#hash = this.#begin()
  }

  digest(): string {
    return this.#hash.copy().digest('hex')
  }

  async sync(): Promise<void> {
    await this.#file.sync().catch((error: Error) => {
      throw writeError(this.#path, error)
    })
  }

  async close(): Promise<void> {
    await this.#file.close()
  }

  #begin(): Hash {
    const { hash, size } = this.#options.file
    return hash.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`)
  }

  /** Takes what an earlier try has left. */
  async #adopt(): Promise<void> {
    const buffer = Buffer.allocUnsafeSlow(1 << 20)
    const { size } = await this.#file.stat()
    while (this.bytes < size) {
      const { bytesRead } = await this.#file.read(buffer, 0, buffer.length, this.bytes)
      if (bytesRead === 0) return
      this.#options.asked.signal.throwIfAborted()
      this.#count(buffer.subarray(0, bytesRead), false)
    }
  }

  #count(bytes: Uint8Array, came: boolean): void {
    this.bytes += bytes.byteLength
    this.#hash.update(bytes)
    this.#options.onBytes(bytes.byteLength, came)
  }
}
