import { closeSync, fstatSync } from 'node:fs'
import { type ErrorCode, LowrankError } from '../util/errors.ts'
import { checkPlainFile } from './plain-file.ts'
import { fill, openDescriptor } from './read-at.ts'
import { type Header, maxHeaderBytes, parseHeader } from './safetensors-header.ts'

/** A file whose header was checked. It is opened when it is read, and may be closed in between: see `maxOpen`. */
export class TensorFile {
  readonly header: Header
  readonly #path: string
  readonly #code: ErrorCode
  /** Which file it was when its header was read. */
  readonly #inode: bigint
  #descriptor: number | undefined
  #reads = 0

  /** Files that are open, the one that was used last at the end. */
  static readonly #open = new Set<TensorFile>()

  private constructor(header: Header, descriptor: number, path: string, code: ErrorCode) {
    this.header = header
    this.#descriptor = descriptor
    this.#inode = fstatSync(descriptor, { bigint: true }).ino
    this.#path = path
    this.#code = code
    TensorFile.#used(this)
  }

  static async open(path: string, code: ErrorCode): Promise<TensorFile> {
    const size = await checkPlainFile(path, { code })
    const descriptor = openDescriptor(path, code)
    try {
      const fail = (what: string): never => {
        throw new LowrankError(code, `${path}: ${what}`, { hint: 'Is it a safetensors file, and complete?' })
      }
      if (size < 8) fail(`${size} bytes are too few for a safetensors file`)
      const start = Buffer.alloc(8)
      await fill(start, descriptor, path, code, 0)
      const length = start.readBigUInt64LE()
      if (length > BigInt(maxHeaderBytes))
        fail(`a header of ${length} bytes is announced, at most ${maxHeaderBytes} are allowed`)
      if (length > BigInt(size - 8)) fail(`a header of ${length} bytes is announced, the file has ${size}`)
      const bytes = new Uint8Array(Number(length))
      await fill(bytes, descriptor, path, code, 8)
      let json = ''
      try {
        json = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
      } catch {
        fail('the header is not valid UTF-8')
      }
      return new TensorFile(parseHeader(json, path, size, code), descriptor, path, code)
    } catch (error) {
      closeSync(descriptor)
      throw error
    }
  }

  async read(offset: number, length: number, into?: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = into === undefined ? new Uint8Array(length) : into.subarray(0, length)
    this.#descriptor ??= this.#reopen()
    this.#reads++
    TensorFile.#used(this)
    try {
      await fill(bytes, this.#descriptor, this.#path, this.#code, offset)
    } finally {
      this.#reads--
    }
    return bytes
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor)
    this.#descriptor = undefined
    TensorFile.#open.delete(this)
  }

  #reopen(): number {
    const descriptor = openDescriptor(this.#path, this.#code)
    if (fstatSync(descriptor, { bigint: true }).ino === this.#inode) return descriptor
    closeSync(descriptor)
    throw new LowrankError(this.#code, `${this.#path} was replaced by another file while it was in use`)
  }

  static #used(file: TensorFile): void {
    TensorFile.#open.delete(file)
    TensorFile.#open.add(file)
    for (const other of TensorFile.#open) {
      if (TensorFile.#open.size <= maxOpen) return
      if (other.#reads === 0 && other !== file) other.close()
    }
  }
}

/**
 * Files that are kept open, unless more are being read. A large model has hundreds of shards, and a process may be allowed no more open
 * files than that.
 */
const maxOpen = 16
