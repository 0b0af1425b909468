import { createHash } from 'node:crypto'
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs'
import { mkdir, readFile, rename, rm, stat, utimes } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { writeError, writeFileAtomic } from '../formats/atomic.ts'
import { hashFile } from '../formats/hash.ts'
import { isJsonObject, parseJson } from '../formats/json.ts'
import { bytesOf } from '../util/dtype.ts'
import type { Dataset } from './dataset.ts'
import type { DataSource } from './readers/index.ts'
import { ExampleStore, type ExampleIndex, FileTokens, indexFields, type TokenSink, type TokenSource } from './store.ts'

/** What the files of an entry are; another form of them gets another number. */
const version = 2

const names = { tokens: 'tokens.bin', index: 'index.bin', fingerprints: 'fingerprints.bin', dataset: 'dataset.json' }

/** Where tokens are kept that no folder is named for. */
export function defaultTokenCache(env: NodeJS.ProcessEnv): string {
  return join(env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'lowrank', 'tokens')
}

/** What decides tokens, beside the files: hashes and options, as JSON. */
export type TokenKey = Readonly<Record<string, unknown>>

/**
 * A dataset whose tokens lie in a file: made by `build` where there is none yet for these files and this key. Whoever is killed while
 * building leaves nothing that could be taken for a whole; of two that build at once, one's is kept.
 *
 * @throws LowrankError `io`: it cannot be written; what `build` throws.
 */
export async function cachedDataset(
  folder: string,
  { sources, key }: { readonly sources: readonly DataSource[]; readonly key: TokenKey },
  build: (tokens: TokenSink) => Promise<Dataset>,
): Promise<Dataset> {
  const hashes = new Map<string, string>()
  for (const { path } of sources) hashes.set(path, await hashFile(path))
  const id = createHash('sha256')
    // Findings name places by path.
    .update(JSON.stringify([version, [...hashes], key]))
    .digest('hex')
    .slice(0, 40)
  const entry = join(folder, id)
  const found = await openEntry(entry, sources)
  if (found !== undefined) return { ...found, hashes }
  const temporary = `${entry}.${process.pid}-${Date.now().toString(36)}.tmp`
  await mkdir(temporary, { recursive: true }).catch((error: Error) => {
    throw writeError(temporary, error)
  })
  const sink = new FileSink(join(temporary, names.tokens))
  try {
    const dataset = await build(sink)
    const { examples, fingerprints, ...rest } = dataset
    if (!(examples instanceof ExampleStore)) throw new TypeError('a cache holds what was read')
    await writeFileAtomic(join(temporary, names.index), bytesOf(examples.index))
    await writeFileAtomic(join(temporary, names.fingerprints), bytesOf(fingerprints))
    await writeFileAtomic(join(temporary, names.dataset), JSON.stringify(rest))
    await rename(temporary, entry).catch(async () => {
      // Where another process was faster, its entry holds the same; one that is damaged makes room.
      const other = await openEntry(entry, sources)
      other?.examples.close()
      if (other !== undefined) return rm(temporary, { recursive: true, force: true })
      await rm(entry, { recursive: true, force: true })
      await rename(temporary, entry)
    })
    // The file of its tokens stays open, by whatever name.
    return { ...dataset, hashes, summary: { ...dataset.summary, onDisk: true } }
  } catch (error) {
    sink.abandon()
    await rm(temporary, { recursive: true, force: true })
    throw error
  }
}

/** An entry, if it is whole. */
async function openEntry(
  entry: string,
  sources: readonly DataSource[],
): Promise<(Dataset & { readonly examples: ExampleStore }) | undefined> {
  const path = (name: string): string => join(entry, name)
  const size = await stat(path(names.tokens)).catch(() => undefined)
  if (size === undefined) return undefined
  try {
    const rest: unknown = parseJson(await readFile(path(names.dataset), 'utf8'))
    const index = new Uint32Array(arrayBufferOf(await readFile(path(names.index)))) as ExampleIndex
    const fingerprints = new Float64Array(arrayBufferOf(await readFile(path(names.fingerprints))))
    if (!isJsonObject(rest) || index.length !== indexFields * fingerprints.length) return undefined
    const { runs, summary, problems } = rest as unknown as Omit<Dataset, 'examples' | 'fingerprints'>
    if (size.size !== 4 * summary.tokens) return undefined
    const starts = runs.map(({ first, unit }, i) => ({ path: sources[i]!.path, first, unit }))
    // What was used last is the last that a user removes.
    const now = new Date()
    await utimes(entry, now, now).catch(() => undefined)
    const examples = new ExampleStore(index, new FileTokens(path(names.tokens)), starts)
    return { examples, runs, fingerprints, problems, summary: { ...summary, onDisk: true } }
  } catch {
    return undefined
  }
}

function arrayBufferOf(bytes: Buffer): ArrayBuffer {
  return new Uint8Array(bytes).buffer
}

/** Tokens that are written to a file. */
class FileSink implements TokenSink {
  readonly #path: string
  readonly #file: number
  readonly #buffer = new Int32Array(2 ** 18)
  #used = 0
  #total = 0

  constructor(path: string) {
    this.#path = path
    this.#file = openSync(path, 'w+')
  }

  add(tokens: Int32Array): number {
    const start = this.#total
    if (this.#used + tokens.length > this.#buffer.length) this.#flush()
    if (tokens.length > this.#buffer.length) this.#write(tokens)
    else {
      this.#buffer.set(tokens, this.#used)
      this.#used += tokens.length
    }
    this.#total += tokens.length
    return start
  }

  finish(): TokenSource {
    this.#flush()
    fsyncSync(this.#file)
    return new FileTokens(this.#path, this.#file)
  }

  abandon(): void {
    closeSync(this.#file)
  }

  #flush(): void {
    this.#write(this.#buffer.subarray(0, this.#used))
    this.#used = 0
  }

  #write(tokens: Int32Array): void {
    const bytes = bytesOf(tokens)
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(this.#file, bytes, done)
    } catch (error) {
      throw writeError(this.#path, error as Error)
    }
  }
}
