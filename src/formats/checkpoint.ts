import { mkdir, readdir, rename, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { LowrankError } from '../util/errors.ts'
import { formatSize } from '../util/format.ts'
import { syncFolder, writeError, writeFileAtomic } from './atomic.ts'
import {
  indexName,
  safetensorsBytes,
  singleName,
  sizeSources,
  type TensorSource,
  writeSafetensors,
} from './safetensors.ts'
import { elements } from '../util/shape.ts'

/** Where a checkpoint is written before it is whole: what a killed process leaves, and the next removes. */
export const unfinishedName = '.checkpoint.tmp'

interface WriteCheckpointOptions {
  /** A file holds at most so many bytes of tensors; a larger tensor has a file of its own. */
  readonly maxShardBytes: number
  /** Of every file; by default what transformers asks for. */
  readonly metadata?: Readonly<Record<string, string>>
  /** Parameters of the model, which the index states; by default the elements of all tensors. */
  readonly parameters?: number
  /** Receives the names of the files before one in the folder is written, replaced or removed. */
  readonly before?: ((names: readonly string[]) => Promise<void> | undefined) | undefined
}

/**
 * Writes the weights of a model folder as transformers does: `model.safetensors`, or above `maxShardBytes` shards and
 * `model.safetensors.index.json`. `data` functions are called in the order given, one at a time. Whatever fails before the last
 * tensor is written leaves the folder as it was; a checkpoint already there is replaced, its other files removed.
 *
 * @returns the bytes of all tensors, and how many there are.
 * @throws LowrankError `io`, before anything is written where the disk has too little room.
 */
export async function writeCheckpoint(
  folder: string,
  tensors: Iterable<TensorSource>,
  { maxShardBytes, metadata = { format: 'pt' }, parameters, before }: WriteCheckpointOptions,
): Promise<{ readonly bytes: number; readonly tensors: number }> {
  const sources = sizeSources(folder, tensors)
  const bytes = sources.reduce((total, { byteLength }) => total + byteLength, 0)
  const shards = shardsOf(sources, maxShardBytes)
  const temporary = join(folder, unfinishedName)
  try {
    // Also what a run left behind that was killed.
    await rm(temporary, { recursive: true, force: true })
    await mkdir(temporary, { recursive: true })
    await checkRoom(folder, bytes)
    for (const [name, shard] of shards) await writeSafetensors(join(temporary, name), shard, metadata)
    await before?.([...shards.keys(), ...(shards.size > 1 ? [indexName] : [])])
    const old = await readdir(folder)
    // Shards of the same names change under the index: meanwhile there is none.
    if (shards.size > 1 && old.some((name) => shards.has(name))) await rm(join(folder, indexName), { force: true })
    for (const name of shards.keys()) await rename(join(temporary, name), join(folder, name))
    if (shards.size > 1) await writeFileAtomic(join(folder, indexName), formatIndex(shards, bytes, parameters))
    else await rm(join(folder, indexName), { force: true })
    for (const name of old) if (isWeights(name) && !shards.has(name)) await rm(join(folder, name))
  } catch (error) {
    throw error instanceof Error && 'syscall' in error ? writeError(folder, error) : error
  } finally {
    // What went wrong before is what counts.
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined)
  }
  await syncFolder(folder)
  return { bytes, tensors: sources.length }
}

/** Bytes of the files that `writeCheckpoint` makes of these tensors, by name. */
export function checkpointBytes(
  tensors: Iterable<Pick<TensorSource, 'name' | 'dtype' | 'shape'>>,
  { maxShardBytes, metadata = { format: 'pt' } }: Pick<WriteCheckpointOptions, 'maxShardBytes' | 'metadata'>,
): ReadonlyMap<string, number> {
  const sources = sizeSources('', tensors)
  const shards = shardsOf(sources, maxShardBytes)
  const files = new Map([...shards].map(([name, shard]) => [name, safetensorsBytes(shard, metadata)]))
  const bytes = sources.reduce((total, { byteLength }) => total + byteLength, 0)
  if (shards.size > 1) files.set(indexName, Buffer.byteLength(formatIndex(shards, bytes, undefined)))
  return files
}

type SizedSource = Pick<TensorSource, 'name' | 'dtype' | 'shape'> & { readonly byteLength: number }

/** The files of a checkpoint, by name. */
function shardsOf<T extends SizedSource>(sources: readonly T[], maxBytes: number): ReadonlyMap<string, readonly T[]> {
  return new Map(
    split(sources, maxBytes).map((shard, i, { length }) => [length === 1 ? singleName : shardName(i, length), shard]),
  )
}

/** In order, so that tensors made from the same data stay together. */
function split<T extends SizedSource>(sources: readonly T[], maxBytes: number): T[][] {
  const shards: T[][] = [[]]
  let bytes = 0
  for (const source of sources) {
    if (bytes > 0 && bytes + source.byteLength > maxBytes) {
      shards.push([])
      bytes = 0
    }
    shards.at(-1)?.push(source)
    bytes += source.byteLength
  }
  return shards
}

function shardName(index: number, count: number): string {
  const [number, of] = [index + 1, count].map((value) => String(value).padStart(5, '0'))
  return `model-${number}-of-${of}.safetensors`
}

/** Whether a file is called as those of a model in several parts are. */
export function isShard(name: string): boolean {
  return /^model-\d{5,}-of-\d{5,}\.safetensors$/.test(name)
}

function isWeights(name: string): boolean {
  return name === singleName || isShard(name)
}

/** As transformers prints it: keys sorted. */
function formatIndex(
  shards: ReadonlyMap<string, readonly SizedSource[]>,
  bytes: number,
  parameters: number | undefined,
): string {
  const all = [...shards].flatMap(([file, shard]) => shard.map((source) => ({ ...source, file })))
  const count = all.reduce((total, { shape }) => total + elements(shape), 0)
  const places = all.map(({ name, file }) => [name, file] as const).sort(([a], [b]) => (a < b ? -1 : 1))
  const index = {
    metadata: { total_parameters: parameters ?? count, total_size: bytes },
    weight_map: Object.fromEntries(places),
  }
  return `${JSON.stringify(index, null, 2)}\n`
}

/** Room for headers and for the file system's own. */
const SPARE_BYTES = 2 ** 20

async function checkRoom(folder: string, bytes: number): Promise<void> {
  const { bavail, blocks, bsize } = await statfs(folder)
  const [needed, free] = [bytes + SPARE_BYTES, bavail * bsize]
  // Some network file systems do not say.
  if (blocks === 0 || needed <= free) return
  throw new LowrankError(
    'io',
    `cannot write a checkpoint to ${folder}: ${formatSize(needed)} are needed (${needed} bytes), ${formatSize(free)} are free (${free} bytes)`,
    { hint: 'Free some space, or write to another disk.' },
  )
}
