import { type FileHandle, open, readdir, stat } from 'node:fs/promises'
import { isAbsolute, join, normalize, sep } from 'node:path'
import { type ErrorCode, internalError, LowrankError } from '../util/errors.ts'
import { writeStreamAtomic } from './atomic.ts'
import { isJsonObject, messageOf, readJsonObject } from './json.ts'
import { checkPlainFile } from './plain-file.ts'
import {
  elementBytes,
  formatHeader,
  type Header,
  maxHeaderBytes,
  parseHeader,
  type TensorDtype,
  tensorBytes,
  type TensorInfo,
} from './safetensors-header.ts'

export type { TensorDtype, TensorInfo } from './safetensors-header.ts'

/** Named tensors on disk: one safetensors file, or the shards of a checkpoint. Call `close()` when done. */
export interface TensorReader {
  readonly tensors: ReadonlyMap<string, TensorInfo>
  /** Of a sharded checkpoint: that of its first shard. */
  readonly metadata: Readonly<Record<string, string>>
  /**
   * The bytes of one tensor, little-endian, row-major: in a fresh buffer of exactly their size, or as the start of `into`, which
   * must be large enough and is not to be touched until the promise settles. Reads nothing else, and goes on while
   * this thread computes.
   */
  read(name: string, into?: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>
  close(): Promise<void>
}

/**
 * A tensor to be written; `data` may be a function, which is called when its turn comes. What it returns is written before
 * the next one is called, so that all may fill the same buffer.
 */
export interface TensorSource {
  readonly name: string
  readonly dtype: TensorDtype
  readonly shape: readonly number[]
  readonly data: Uint8Array | (() => Uint8Array | Promise<Uint8Array>)
}

/**
 * Opens a safetensors file and checks its whole header (https://github.com/huggingface/safetensors#format).
 * Errors have code `code`, by default `model`.
 */
export async function openSafetensors(
  path: string,
  { code = 'model' }: { code?: ErrorCode } = {},
): Promise<TensorReader> {
  const file = await OpenFile.open(path, code)
  return new Reader(file.header.tensors, file.header.metadata, new Map([[path, file]]), code)
}

/**
 * Opens the weights of a model folder: `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
 * A folder with pickle files only is refused: those can run code when they are loaded.
 */
export async function openCheckpoint(
  folder: string,
  { code = 'model' }: { code?: ErrorCode } = {},
): Promise<TensorReader> {
  const names = await readdir(folder).catch((cause: unknown) => {
    throw new LowrankError(code, `cannot open the folder ${folder}: ${messageOf(cause)}`, { cause })
  })
  if (names.includes(singleName)) return openSafetensors(join(folder, singleName), { code })
  if (names.includes(indexName)) return openShards(folder, code)
  const pickle = names.find((name) => /\.(bin|pt|pth|ckpt)$/.test(name))
  throw new LowrankError(
    code,
    `${folder} has no ${singleName} and no ${indexName}${pickle ? `, only ${pickle}` : ''}`,
    {
      hint: pickle
        ? 'Pickle files can run code when they are loaded, so they are not read. Convert the model to safetensors first ' +
          '(in Python: model.save_pretrained(folder)), or download a revision that has safetensors.'
        : 'Is it the folder of a Hugging Face model (config.json, tokenizer.json, model.safetensors)?',
    },
  )
}

/**
 * Writes a safetensors file, whole or not at all. Tensors are laid out as the reference implementation does (wider
 * elements first, then by name); `data` functions are called in the order given, one at a time.
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<TensorSource>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const sources = sizeSources(path, tensors)
  const layout = [...sources].sort(
    (a, b) => elementBytes(b.dtype) - elementBytes(a.dtype) || (a.name < b.name ? -1 : 1),
  )
  const header = formatHeader(layout, metadata)
  let end = header.byteLength
  const positions = new Map(layout.map(({ name, byteLength }) => [name, (end += byteLength) - byteLength]))
  await writeStreamAtomic(path, async (write) => {
    await write(header)
    for (const source of sources) {
      const data = typeof source.data === 'function' ? await source.data() : source.data
      if (data.byteLength !== source.byteLength) {
        throw sourceError(path, source.name, `${source.byteLength} bytes expected, ${data.byteLength} given`)
      }
      await write(data, positions.get(source.name))
    }
  })
}

/** Tensors to be written to `path` with the bytes they take; names must be unique. */
export function sizeSources(
  path: string,
  tensors: Iterable<TensorSource>,
): readonly (TensorSource & { readonly byteLength: number })[] {
  const names = new Set(['__metadata__'])
  return Array.from(tensors, (source) => {
    const { name, dtype, shape } = source
    const byteLength = tensorBytes(dtype, shape)
    if (byteLength === undefined) throw sourceError(path, name, `shape [${shape.join(', ')}] is not possible`)
    if (names.has(name)) throw sourceError(path, name, 'the name is taken')
    names.add(name)
    return { ...source, byteLength }
  })
}

export const singleName = 'model.safetensors'
export const indexName = 'model.safetensors.index.json'

class Reader implements TensorReader {
  readonly tensors: ReadonlyMap<string, TensorInfo>
  readonly metadata: Readonly<Record<string, string>>
  readonly #files: ReadonlyMap<string, OpenFile>
  readonly #code: ErrorCode

  constructor(
    tensors: ReadonlyMap<string, TensorInfo>,
    metadata: Readonly<Record<string, string>>,
    files: ReadonlyMap<string, OpenFile>,
    code: ErrorCode,
  ) {
    this.tensors = tensors
    this.metadata = metadata
    this.#files = files
    this.#code = code
  }

  async read(name: string, into?: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    const info = this.tensors.get(name)
    const file = info && this.#files.get(info.file)
    if (!info || !file) {
      const where = [...this.#files.keys()].join(', ')
      throw new LowrankError(this.#code, `tensor "${name}" is not in ${where}`)
    }
    if (into !== undefined && into.byteLength < info.byteLength) {
      throw internalError(`tensor "${name}" of ${info.byteLength} bytes is read into a buffer of ${into.byteLength}`)
    }
    return file.read(info.offset, info.byteLength, into)
  }

  async close(): Promise<void> {
    await Promise.all([...this.#files.values()].map((file) => file.close()))
  }
}

/** An open file with its checked header. */
class OpenFile {
  readonly header: Header
  readonly #handle: FileHandle
  readonly #path: string
  readonly #code: ErrorCode

  private constructor(header: Header, handle: FileHandle, path: string, code: ErrorCode) {
    this.header = header
    this.#handle = handle
    this.#path = path
    this.#code = code
  }

  static async open(path: string, code: ErrorCode): Promise<OpenFile> {
    const size = await checkPlainFile(path, { code })
    const handle = await open(path).catch((cause: unknown) => {
      throw new LowrankError(code, `cannot open ${path}: ${messageOf(cause)}`, { cause })
    })
    try {
      const fail = (what: string): never => {
        throw new LowrankError(code, `${path}: ${what}`, { hint: 'Is it a safetensors file, and complete?' })
      }
      if (size < 8) fail(`${size} bytes are too few for a safetensors file`)
      const start = Buffer.alloc(8)
      await fill(start, handle, path, code, 0)
      const length = start.readBigUInt64LE()
      if (length > BigInt(maxHeaderBytes))
        fail(`a header of ${length} bytes is announced, at most ${maxHeaderBytes} are allowed`)
      if (length > BigInt(size - 8)) fail(`a header of ${length} bytes is announced, the file has ${size}`)
      const bytes = new Uint8Array(Number(length))
      await fill(bytes, handle, path, code, 8)
      let json = ''
      try {
        json = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
      } catch {
        fail('the header is not valid UTF-8')
      }
      return new OpenFile(parseHeader(json, path, size, code), handle, path, code)
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  async read(offset: number, length: number, into?: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = into === undefined ? new Uint8Array(length) : into.subarray(0, length)
    await fill(bytes, this.#handle, this.#path, this.#code, offset)
    return bytes
  }

  close(): Promise<void> {
    return this.#handle.close()
  }
}

async function openShards(folder: string, code: ErrorCode): Promise<TensorReader> {
  const indexPath = join(folder, indexName)
  const { weight_map: weightMap } = await readJsonObject(indexPath, { code, maxBytes: maxHeaderBytes })
  if (!isJsonObject(weightMap)) throw new LowrankError(code, `${indexPath}: "weight_map" is not an object`)
  const tensors = new Map<string, TensorInfo>()
  const files = new Map<string, OpenFile>()
  try {
    for (const [name, shard] of Object.entries(weightMap)) {
      const path = shardPath(folder, shard)
      if (path === undefined) {
        throw new LowrankError(
          code,
          `${indexPath}: tensor "${name}" lies in ${JSON.stringify(shard)}, outside the folder`,
        )
      }
      const file = files.get(path) ?? (await openShard(path, indexPath, code))
      files.set(path, file)
      const info = file.header.tensors.get(name)
      if (!info) {
        throw new LowrankError(
          code,
          `${indexPath} places tensor "${name}" in ${String(shard)}, which does not have it`,
          {
            hint: 'Index and shards are from different checkpoints; download them again.',
          },
        )
      }
      tensors.set(name, info)
    }
  } catch (error) {
    await Promise.all([...files.values()].map((file) => file.close()))
    throw error
  }
  return new Reader(tensors, [...files.values()][0]?.header.metadata ?? {}, files, code)
}

async function openShard(path: string, indexPath: string, code: ErrorCode): Promise<OpenFile> {
  await stat(path).catch((cause: unknown) => {
    throw new LowrankError(code, `${indexPath} lists ${path}, which cannot be opened: ${messageOf(cause)}`, {
      cause,
      hint: 'The checkpoint is incomplete; download the missing shard.',
    })
  })
  return OpenFile.open(path, code)
}

/** Where a shard is; undefined unless its name is a relative path that stays inside the folder. */
function shardPath(folder: string, shard: unknown): string | undefined {
  if (typeof shard !== 'string' || shard === '' || shard.includes('\0') || isAbsolute(shard)) return undefined
  const relative = normalize(shard)
  return relative === '..' || relative.startsWith(`..${sep}`) ? undefined : join(folder, relative)
}

/** One read call returns at most 2 GiB. */
const maxRead = 2 ** 30

/**
 * Reads from `offset` on until `bytes` is full. All calls are made at once, so that none waits for this thread, which may be
 * computing; the buffer is left alone once the promise has settled, also by a failure.
 */
async function fill(
  bytes: Uint8Array,
  handle: FileHandle,
  path: string,
  code: ErrorCode,
  offset: number,
): Promise<void> {
  const pieces = Array.from({ length: Math.ceil(bytes.byteLength / maxRead) }, async (_, i) => {
    const end = Math.min((i + 1) * maxRead, bytes.byteLength)
    for (let done = i * maxRead; done < end;) {
      const { bytesRead } = await handle.read(bytes, done, end - done, offset + done).catch((cause: unknown) => {
        throw new LowrankError('io', `cannot read ${path}: ${messageOf(cause)}`, { cause })
      })
      if (bytesRead === 0) throw new LowrankError(code, `${path} ends at byte ${offset + done}: it was cut while open`)
      done += bytesRead
    }
  })
  for (const piece of await Promise.allSettled(pieces)) if (piece.status === 'rejected') throw piece.reason
}

function sourceError(path: string, name: string, what: string): LowrankError {
  return internalError(`cannot write tensor "${name}" to ${path}: ${what}`)
}
