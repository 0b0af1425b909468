import { readdir, stat } from 'node:fs/promises'
import { isAbsolute, join, normalize, sep } from 'node:path'
import { type ErrorCode, internalError, LowrankError, messageOf } from '../util/errors.ts'
import { writeStreamAtomic } from './atomic.ts'
import { isJsonObject, readJsonObject } from './json.ts'
import type { ByteRange } from './read-at.ts'
import {
  elementBits,
  formatHeader,
  maxHeaderBytes,
  type TensorDtype,
  tensorBytes,
  type TensorInfo,
} from './safetensors-header.ts'
import { TensorFile } from './safetensors-file.ts'

export type { TensorDtype, TensorInfo } from './safetensors-header.ts'

/** Named tensors on disk: one safetensors file, or the shards of a checkpoint. Call `close()` when done. */
export interface TensorReader {
  readonly tensors: ReadonlyMap<string, TensorInfo>
  /** Of a sharded checkpoint: that of its first shard. */
  readonly metadata: Readonly<Record<string, string>>
  /**
   * The bytes of one tensor, little-endian, row-major: in a fresh buffer of exactly their size, or as the start of `into`, which
   * must be large enough and is not to be touched until the promise settles. Reads nothing else, and goes on while
   * this thread computes. `range`: those of its bytes that are wanted, from `start` up to `end`.
   */
  read(name: string, into?: Uint8Array<ArrayBuffer>, range?: ByteRange): Promise<Uint8Array<ArrayBuffer>>
  close(): Promise<void>
}

/**
 * A tensor to be written; `data` may be a function, which is called when its turn comes, and may give the bytes piece by piece. What it
 * returns is written before the next is asked for, so that all may fill the same buffer.
 */
export interface TensorSource {
  readonly name: string
  readonly dtype: TensorDtype
  readonly shape: readonly number[]
  readonly data: Uint8Array | (() => Uint8Array | Promise<Uint8Array> | AsyncIterable<Uint8Array>)
}

/**
 * Opens a safetensors file and checks its whole header (https://github.com/huggingface/safetensors#format).
 * Errors have code `code`, by default `model`.
 */
export async function openSafetensors(
  path: string,
  { code = 'model' }: { code?: ErrorCode } = {},
): Promise<TensorReader> {
  const file = await TensorFile.open(path, code)
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
  const { layout, header } = layOut(sources, metadata)
  let end = header.byteLength
  const positions = new Map(layout.map(({ name, byteLength }) => [name, (end += byteLength) - byteLength]))
  await writeStreamAtomic(path, async (write) => {
    await write(header)
    for (const source of sources) {
      const position = positions.get(source.name) ?? 0
      let given = 0
      for await (const piece of piecesOf(source)) {
        given += piece.byteLength
        if (given > source.byteLength) break
        await write(piece, position + given - piece.byteLength)
      }
      if (given !== source.byteLength) {
        throw sourceError(path, source.name, `${source.byteLength} bytes expected, ${given} given`)
      }
    }
  })
}

/** Bytes of the file that `writeSafetensors` makes of these tensors. */
export function safetensorsBytes(
  tensors: Iterable<Pick<TensorSource, 'name' | 'dtype' | 'shape'>>,
  metadata: Readonly<Record<string, string>> = {},
): number {
  const sources = sizeSources('', tensors)
  return sources.reduce((total, { byteLength }) => total + byteLength, layOut(sources, metadata).header.byteLength)
}

type Sized<T> = T & { readonly byteLength: number }
type Described = Pick<TensorSource, 'name' | 'dtype' | 'shape'>

function layOut<T extends Sized<Described>>(
  sources: readonly T[],
  metadata: Readonly<Record<string, string>>,
): { readonly layout: readonly T[]; readonly header: Buffer } {
  const layout = sources.toSorted((a, b) => elementBits(b.dtype) - elementBits(a.dtype) || (a.name < b.name ? -1 : 1))
  return { layout, header: formatHeader(layout, metadata) }
}

async function* piecesOf({ data }: TensorSource): AsyncGenerator<Uint8Array> {
  const given = typeof data === 'function' ? await data() : data
  if (given instanceof Uint8Array) yield given
  else yield* given
}

/** The same tensors by other names; `nameOf` gives that of a stored one, undefined to leave it out, and must not give two the same. */
export function renameTensors(reader: TensorReader, nameOf: (stored: string) => string | undefined): TensorReader {
  const stored = new Map<string, string>()
  for (const name of reader.tensors.keys()) {
    const given = nameOf(name)
    if (given !== undefined) stored.set(given, name)
  }
  return {
    tensors: new Map([...stored].map(([name, storedName]) => [name, reader.tensors.get(storedName)!])),
    metadata: reader.metadata,
    read: (name, into, range) => reader.read(stored.get(name) ?? name, into, range),
    close: () => reader.close(),
  }
}

/** Tensors to be written to `path` with the bytes they take; names must be unique. */
export function sizeSources<T extends Described>(path: string, tensors: Iterable<T>): readonly Sized<T>[] {
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
  readonly #files: ReadonlyMap<string, TensorFile>
  readonly #code: ErrorCode
  #closed = false

  constructor(
    tensors: ReadonlyMap<string, TensorInfo>,
    metadata: Readonly<Record<string, string>>,
    files: ReadonlyMap<string, TensorFile>,
    code: ErrorCode,
  ) {
    this.tensors = tensors
    this.metadata = metadata
    this.#files = files
    this.#code = code
  }

  async read(name: string, into?: Uint8Array<ArrayBuffer>, range?: ByteRange): Promise<Uint8Array<ArrayBuffer>> {
    const info = this.tensors.get(name)
    const file = info && this.#files.get(info.file)
    if (!info || !file) {
      const where = [...this.#files.keys()].join(', ')
      throw new LowrankError(this.#code, `tensor "${name}" is not in ${where}`)
    }
    // Its file would be opened again, and stay so.
    if (this.#closed) throw internalError(`${info.file} is read after it was closed`)
    const { start, end } = range ?? { start: 0, end: info.byteLength }
    if (start < 0 || start > end || end > info.byteLength) {
      throw internalError(`bytes ${start} to ${end} of tensor "${name}", which has ${info.byteLength}`)
    }
    if (into !== undefined && into.byteLength < end - start) {
      throw internalError(`tensor "${name}" of ${end - start} bytes is read into a buffer of ${into.byteLength}`)
    }
    return file.read(info.offset + start, end - start, into)
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const file of this.#files.values()) file.close()
  }
}

async function openShards(folder: string, code: ErrorCode): Promise<TensorReader> {
  const indexPath = join(folder, indexName)
  const { weight_map: weightMap } = await readJsonObject(indexPath, { code, maxBytes: maxHeaderBytes })
  if (!isJsonObject(weightMap)) throw new LowrankError(code, `${indexPath}: "weight_map" is not an object`)
  const tensors = new Map<string, TensorInfo>()
  const files = new Map<string, TensorFile>()
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
            hint: 'Index and shards are from different checkpoints.',
          },
        )
      }
      tensors.set(name, info)
    }
  } catch (error) {
    for (const file of files.values()) file.close()
    throw error
  }
  return new Reader(tensors, [...files.values()][0]?.header.metadata ?? {}, files, code)
}

async function openShard(path: string, indexPath: string, code: ErrorCode): Promise<TensorFile> {
  await stat(path).catch((cause: unknown) => {
    throw new LowrankError(code, `${indexPath} lists ${path}, which cannot be opened: ${messageOf(cause)}`, {
      cause,
      hint: 'The checkpoint is incomplete: this shard is missing.',
    })
  })
  return TensorFile.open(path, code)
}

/** Where a shard is; undefined unless its name is a relative path that stays inside the folder. */
function shardPath(folder: string, shard: unknown): string | undefined {
  if (typeof shard !== 'string' || shard === '' || shard.includes('\0') || isAbsolute(shard)) return undefined
  const relative = normalize(shard)
  return relative === '..' || relative.startsWith(`..${sep}`) ? undefined : join(folder, relative)
}

function sourceError(path: string, name: string, what: string): LowrankError {
  return internalError(`cannot write tensor "${name}" to ${path}: ${what}`)
}
