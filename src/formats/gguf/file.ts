import { closeSync, fstatSync, readSync } from 'node:fs'
import { internalError, LowrankError, messageOf } from '../../util/errors.ts'
import { type GgufHeader, type GgufTensor, parseGgufHeader } from './header.ts'
import type { GgufMetadata } from './metadata.ts'
import { checkPlainFile } from '../plain-file.ts'
import { type ByteRange, fill, openDescriptor } from '../read-at.ts'

export type { GgufTensor } from './header.ts'
export type { GgufArray, GgufMetadata, GgufValue } from './metadata.ts'

/** What is in a GGUF file, wherever it is: on disk, or still to be written. */
export interface GgufContents {
  readonly path: string
  readonly metadata: GgufMetadata
  readonly tensors: ReadonlyMap<string, GgufTensor>
  readonly read: (name: string) => Promise<Uint8Array<ArrayBuffer>>
}

/** A GGUF file whose header was checked. Call `close()` when done. */
export class GgufFile {
  readonly path: string
  readonly metadata: GgufMetadata
  readonly tensors: ReadonlyMap<string, GgufTensor>
  #descriptor: number | undefined

  private constructor(path: string, { metadata, tensors }: GgufHeader, descriptor: number) {
    this.path = path
    this.metadata = metadata
    this.tensors = tensors
    this.#descriptor = descriptor
  }

  /** @throws LowrankError `model`: what is wrong with the file, naming the entry or tensor. */
  static async open(path: string): Promise<GgufFile> {
    await checkPlainFile(path, { code: 'model' })
    const descriptor = openDescriptor(path, 'model')
    try {
      const { ino, size, mtimeNs } = fstatSync(descriptor, { bigint: true })
      const key = [path, ino, size, mtimeNs].join()
      const known = recent?.key === key ? recent.header.deref() : undefined
      if (known !== undefined) return new GgufFile(path, known, descriptor)
      const read = (offset: number, length: number): Uint8Array => readNow(path, descriptor, offset, length)
      const fail = (what: string, hint = 'Is it a GGUF file, and complete?'): never => {
        throw new LowrankError('model', `${path}: ${what}`, { hint })
      }
      const header = parseGgufHeader({ path, size: Number(size), read, fail })
      recent = { key, header: new WeakRef(header) }
      return new GgufFile(path, header, descriptor)
    } catch (error) {
      closeSync(descriptor)
      throw error
    }
  }

  /**
   * The bytes of a tensor, or a range of them: in a fresh buffer of exactly their size, or as the start of `into`, which must be large
   * enough and is not to be touched until the promise settles. Goes on while this thread computes.
   */
  async read(name: string, into?: Uint8Array<ArrayBuffer>, range?: ByteRange): Promise<Uint8Array<ArrayBuffer>> {
    const tensor = this.tensors.get(name)
    if (tensor === undefined) throw new LowrankError('model', `${this.path} has no tensor ${JSON.stringify(name)}`)
    if (this.#descriptor === undefined) throw internalError(`${this.path} is read after it was closed`)
    const { start, end } = range ?? { start: 0, end: tensor.byteLength }
    if (start < 0 || start > end || end > tensor.byteLength) {
      throw internalError(`bytes ${start} to ${end} of tensor ${name}, which has ${tensor.byteLength}`)
    }
    const length = end - start
    if (into !== undefined && into.byteLength < length) {
      throw internalError(`${length} bytes of tensor ${name} are read into a buffer of ${into.byteLength}`)
    }
    const bytes = into === undefined ? new Uint8Array(length) : into.subarray(0, length)
    await fill(bytes, this.#descriptor, this.path, 'model', tensor.offset + start)
    return bytes
  }

  async close(): Promise<void> {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor)
    this.#descriptor = undefined
  }
}

/** The header that was read last, as long as someone has it: a file is opened for its configuration, its tokenizer and its weights. */
let recent: { readonly key: string; readonly header: WeakRef<GgufHeader> } | undefined

/** The bytes from `offset` on: fewer than `length` at the end of the file. */
function readNow(path: string, descriptor: number, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  let done = 0
  try {
    while (done < length) {
      const count = readSync(descriptor, bytes, done, length - done, offset + done)
      if (count === 0) break
      done += count
    }
  } catch (cause) {
    throw new LowrankError('io', `cannot read ${path}: ${messageOf(cause)}`, { cause })
  }
  return bytes.subarray(0, done)
}
