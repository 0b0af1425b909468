import { mkdir, stat, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { datasetInfo, listFiles, modelInfo } from '@huggingface/hub'
import { takeLock } from '../formats/lock.ts'
import { writeError } from '../formats/atomic.ts'
import { indexName } from '../formats/safetensors.ts'
import { formatSize } from '../util/format.ts'
import { LowrankError, messageOf } from '../util/errors.ts'
import { downloadBlob, type HubFile, partialOf } from './blob.ts'
import { CachedRepo, commitPattern, isFile } from './cache.ts'
import { addressOf, apiFetch, type Asked, hubOf, strange } from './client.ts'
import { lacks, type Needs, partsOf } from './files.ts'
import type { Progress } from './progress.ts'

/** Files of one repository that are downloaded at once. */
const together = 4
/** Entries that the top folder of a repository has at most: a model has some dozens. */
const maxEntries = 10_000

export interface Fetched {
  readonly folder: string
  readonly commit: string
}

/** A repository of which the cache may lack the weights. */
export interface FetchedSmall extends Fetched {
  /** The files of weights, with the hub that has them; undefined where the cache has them. */
  readonly remote: { readonly asked: Asked; readonly files: readonly HubFile[] } | undefined
}

/**
 * Finds a repository in the cache, whole, or makes it so. The hub is asked for the commit of a branch or tag; for more where the cache lacks
 * something.
 */
export async function fetchRepo(
  { id, revision }: { readonly id: string; readonly revision: string },
  needs: Needs,
  { signal, progress }: { readonly signal: AbortSignal; readonly progress: Progress },
): Promise<Fetched> {
  const repo = new CachedRepo(id)
  const { offline, ...hub } = hubOf(process.env)
  const asked: Asked = { ...hub, kind: 'model', id, revision, signal }
  const cached = await repo.commitOf(revision)
  if (offline) return fromCache(repo, cached, needs, { asked, progress })
  let commit: string
  try {
    commit = commitPattern.test(revision) ? revision : await askCommit(asked)
  } catch (error) {
    // Without a network, or a hub that answers, what is there serves.
    const whole = cached !== undefined && (await missingIn(repo, cached, needs)).required.length === 0
    if (signal.aborted || !whole || !(error instanceof LowrankError && error.code === 'io')) throw error
    progress.messages.push(`${error.message}; continuing with commit ${cached.slice(0, 12)} of the cache`)
    return { folder: repo.snapshot(cached), commit: cached }
  }
  const { required, unknown } = await missingIn(repo, commit, needs)
  if (required.length + unknown.length > 0) await complete(repo, commit, needs, { asked, progress })
  // A cache that may only be read serves as well.
  await repo.noteCommit(revision, commit).catch(() => undefined)
  return { folder: repo.snapshot(commit), commit }
}

/** The same, with nothing downloaded but small files: what there is to know of weights that are not in the cache. */
export async function fetchSmall(
  { id, revision }: { readonly id: string; readonly revision: string },
  needs: Needs,
  { signal, progress }: { readonly signal: AbortSignal; readonly progress: Progress },
): Promise<FetchedSmall> {
  const repo = new CachedRepo(id)
  const { offline, ...hub } = hubOf(process.env)
  const asked: Asked = { ...hub, kind: 'model', id, revision, signal }
  const cached = await repo.commitOf(revision)
  if (offline) return { ...(await fromCache(repo, cached, needs, { asked, progress })), remote: undefined }
  const whole = cached !== undefined && (await missingIn(repo, cached, needs)).required.length === 0
  if (whole) return { folder: repo.snapshot(cached), commit: cached, remote: undefined }
  const commit = commitPattern.test(revision) ? revision : await askCommit(asked)
  const files = await complete(repo, commit, needs, { asked, progress, weights: false })
  return { folder: repo.snapshot(commit), commit, remote: { asked, files } }
}

/** What the cache lacks of a commit, and of which files it does not know whether there are any. */
async function missingIn(
  repo: CachedRepo,
  commit: string,
  needs: Needs,
): Promise<{ required: string[]; unknown: string[] }> {
  const absent = async (names: readonly string[]): Promise<string[]> => {
    const there = await Promise.all(names.map((name) => repo.has(commit, name)))
    return names.filter((_, i) => there[i] !== true)
  }
  const known = await Promise.all(needs.optional.map((name) => repo.has(commit, name)))
  const unknown = needs.optional.filter((_, i) => known[i] === undefined)
  const required = await absent(needs.required)
  const [first = ''] = needs.weights
  const missing = await absent(needs.weights)
  if (missing.length === needs.weights.length) required.push(first)
  else if (missing.includes(first)) required.push(...(await absent(await partsOf(repo.snapshot(commit), repo.id))))
  return { required, unknown }
}

async function fromCache(
  repo: CachedRepo,
  commit: string | undefined,
  needs: Needs,
  { asked: { id, revision }, progress }: { readonly asked: Asked; readonly progress: Progress },
): Promise<Fetched> {
  const { required, unknown } =
    commit === undefined ? { required: ['anything'], unknown: [] } : await missingIn(repo, commit, needs)
  if (commit === undefined || required.length > 0) {
    const known = (await stat(repo.folder).catch(() => undefined)) !== undefined
    const lacking =
      commit !== undefined
        ? `has no ${required.join(', ')} of it`
        : known
          ? `does not know its revision "${revision}"`
          : 'has nothing of it'
    throw new LowrankError('model', `${id}: HF_HUB_OFFLINE is set, and the cache ${dirname(repo.folder)} ${lacking}`, {
      hint: 'Unset HF_HUB_OFFLINE once to download it, or set HF_HUB_CACHE (HF_HOME) to the cache that has it.',
    })
  }
  // They decide where a text ends.
  const deciding = unknown.filter((name) => name === 'tokenizer_config.json' || name === 'generation_config.json')
  if (deciding.length > 0) {
    progress.messages.push(
      `the cache has no ${deciding.join(' and no ')} of ${id}; whether the hub has one is not asked, offline`,
    )
  }
  return { folder: repo.snapshot(commit), commit }
}

/** The commit that a branch or tag is at. */
export async function askCommit(asked: Asked): Promise<string> {
  const { kind, id, revision, endpoint } = asked
  const question = { name: id, revision, hubUrl: endpoint, fetch: apiFetch(asked) }
  const { sha } = await understood<{ readonly sha?: unknown }>(asked, () =>
    kind === 'model'
      ? modelInfo({ ...question, additionalFields: ['sha'] })
      : datasetInfo({ ...question, additionalFields: ['sha'] }),
  )
  if (typeof sha !== 'string' || !commitPattern.test(sha)) throw strange(asked, 'names no commit')
  return sha
}

/**
 * The files in the top folder of a commit, by name, or all of a dataset. Names of a model that could lead elsewhere are not among those that
 * are asked for.
 */
export async function askFiles(asked: Asked, commit: string): Promise<ReadonlyMap<string, HubFile>> {
  const { kind, id, endpoint } = asked
  const files = new Map<string, HubFile>()
  let entries = 0
  await understood(asked, async () => {
    const list = listFiles({
      repo: { type: kind, name: id },
      recursive: kind === 'dataset',
      revision: commit,
      hubUrl: endpoint,
      fetch: apiFetch(asked),
    })
    for await (const { type, path: name, size, oid, lfs } of list) {
      if (++entries > maxEntries) throw strange(asked, `lists more than ${maxEntries} files`)
      if (type !== 'file') continue
      const hash = lfs?.oid ?? oid ?? ''
      if (
        !(lfs === undefined ? /^[0-9a-f]{40}$/ : /^[0-9a-f]{64}$/).test(hash) ||
        !Number.isSafeInteger(size) ||
        size < 0
      ) {
        throw strange(asked, `describes ${JSON.stringify(name).slice(0, 200)} by no size and hash`)
      }
      files.set(name, { name, size, hash })
    }
  })
  return files
}

/** An answer that the client of the hub does not understand is an error of ours too. */
async function understood<T>(asked: Asked, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask()
  } catch (error) {
    if (error instanceof LowrankError || asked.signal.aborted) throw error
    throw strange(asked, `is not understood: ${messageOf(error)}`)
  }
}

/**
 * Downloads what is missing of a commit: the small files first, and the weights once those can be used, unless `weights` is false. Returns
 * the files of weights.
 */
async function complete(
  repo: CachedRepo,
  commit: string,
  needs: Needs,
  parts: { readonly asked: Asked; readonly progress: Progress; readonly weights?: boolean },
): Promise<readonly HubFile[]> {
  const { asked } = parts
  const { id } = asked
  const files = await askFiles(asked, commit)
  const missing = needs.required.find((name) => !files.has(name))
  if (missing !== undefined) throw lacks(needs, missing, id, files.keys())
  const weights = needs.weights.find((name) => files.has(name))
  if (weights === undefined) throw lacks(needs, needs.weights[0] ?? '', id, files.keys())
  const sharded = weights === indexName
  const release = await waitForLock(repo, parts)
  try {
    const found = (names: readonly string[]): HubFile[] =>
      names.map((name) => files.get(name) ?? raise(lacks(needs, name, id, files.keys())))
    const get = (names: readonly string[]): Promise<void> => download(repo, commit, found(names), parts)
    const optional = needs.optional.filter((name) => files.has(name))
    await get([...needs.required, ...optional, ...(sharded ? [weights] : [])])
    const folder = repo.snapshot(commit)
    await needs.check(folder)
    const parted = found(sharded ? await partsOf(folder, id) : [weights])
    if (parts.weights !== false) await download(repo, commit, parted, parts)
    for (const name of needs.optional) if (!files.has(name)) await repo.noteAbsent(commit, name)
    return parted
  } finally {
    await release()
  }
}

function raise(error: Error): never {
  throw error
}

export async function waitForLock(
  repo: CachedRepo,
  { asked: { id, signal }, progress }: { readonly asked: Asked; readonly progress: Progress },
): Promise<() => Promise<void>> {
  await mkdir(dirname(repo.lock), { recursive: true }).catch((error: Error) => {
    throw writeError(repo.lock, error)
  })
  for (let waited = false; ; waited = true) {
    try {
      return await takeLock(repo.lock, `waiting for another download of ${id}`)
    } catch (error) {
      if (!(error instanceof LowrankError && error.code === 'config')) throw error
      if (!waited) progress.messages.push(error.message)
      await sleep(200, undefined, { signal })
    }
  }
}

/** Downloads contents that are not there yet, and makes them files of the commit. */
export async function download(
  repo: CachedRepo,
  commit: string,
  files: readonly HubFile[],
  { asked, progress }: { readonly asked: Asked; readonly progress: Progress },
): Promise<void> {
  const { id, signal } = asked
  // Files of equal content are one.
  const missing = new Map(files.map((file) => [file.hash, file]))
  for (const hash of missing.keys()) if (await isFile(join(repo.blobs, hash))) missing.delete(hash)
  await checkSpace(repo, [...missing.values()], asked)
  const total = [...missing.values()].reduce((sum, { size }) => sum + size, 0)
  if (total > noticed) progress.messages.push(`downloading ${id}, commit ${commit.slice(0, 12)}: ${formatSize(total)}`)
  progress.start(total)
  const stop = new AbortController()
  const mine: Asked = { ...asked, signal: AbortSignal.any([signal, stop.signal]) }
  const queue = [...missing.values()]
  let failure: Error | undefined
  const work = async (): Promise<void> => {
    for (let file = queue.shift(); file !== undefined && failure === undefined; file = queue.shift()) {
      const url = `${addressOf(asked)}/resolve/${commit}/${file.name.split('/').map(encodeURIComponent).join('/')}`
      try {
        await downloadBlob({ url, file, path: join(repo.blobs, file.hash), asked: mine, onBytes: progress.add })
      } catch (error) {
        failure ??= error as Error
        stop.abort()
      }
    }
  }
  await Promise.all(Array.from({ length: together }, work))
  if (failure !== undefined) throw failure
  for (const { name, hash } of files) await repo.link(commit, name, hash)
}

/** Bytes that take more than a moment. */
const noticed = 10e6

/** Refuses before the first byte what the disk has no room for. */
async function checkSpace(repo: CachedRepo, files: readonly HubFile[], { id }: Asked): Promise<void> {
  if (files.length === 0) return
  await mkdir(repo.blobs, { recursive: true }).catch((error: Error) => {
    throw writeError(repo.blobs, error)
  })
  const sizes = files.map(async ({ size, hash }) => {
    const begun = await stat(partialOf(join(repo.blobs, hash))).catch(() => undefined)
    return size - Math.min(size, begun?.size ?? 0)
  })
  const needed = (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0)
  const { bavail, bsize } = await statfs(repo.blobs)
  if (needed <= bavail * bsize) return
  throw new LowrankError(
    'io',
    `the disk has too little room for ${id}: ${formatSize(needed)} are to come, ${formatSize(bavail * bsize)} are free in ${repo.blobs}`,
    {
      hint: 'Free some space ("lowrank models" lists what the cache has), or set HF_HUB_CACHE to a folder on another disk.',
    },
  )
}
