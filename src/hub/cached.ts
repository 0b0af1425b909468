import { lstat, mkdir, readdir, readFile, readlink, realpath, rm, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { takeLock } from '../formats/lock.ts'
import { LowrankError } from '../util/errors.ts'
import { parseHubName } from '../util/hub-name.ts'
import { CachedRepo, cacheFolder } from './cache.ts'
import type { RepoKind } from './client.ts'

/** A model, an adapter or a dataset in the cache of the hub, in one of its revisions. */
export interface CachedModel {
  /** As it is named where it is used: `org/name`, a dataset `hf:org/name`. */
  readonly id: string
  readonly kind: RepoKind
  /** The commit; undefined of what is left of downloads that were not finished. */
  readonly revision: string | undefined
  /** Branches and tags that were at this commit when they were last asked for. */
  readonly refs: readonly string[]
  /** Bytes of its files; what two revisions share counts for both. */
  readonly size: number
  /** When one of its files was last read, as far as the system notes that; ISO 8601. */
  readonly lastUsed: string
  /** The folder, which serves as the folder of a model. */
  readonly folder: string
}

/** What was removed of the cache. */
export interface RemovedModel {
  /** As it was named, without the revision. */
  readonly id: string
  /** Its commits. */
  readonly revisions: readonly string[]
  /** Bytes that are free now. */
  readonly bytes: number
}

/** What the cache of the hub has, whichever program has put it there; what was used last comes first. */
export async function listCached(cache = cacheFolder()): Promise<CachedModel[]> {
  const names = await readdir(cache).catch(() => [])
  const repos = names.flatMap((name) => repoOf(name, cache) ?? [])
  const found = (await Promise.all(repos.map((repo) => revisionsOf(repo)))).flat()
  return found.sort((a, b) => (a.lastUsed < b.lastUsed ? 1 : a.lastUsed > b.lastUsed ? -1 : a.id < b.id ? -1 : 1))
}

/**
 * Removes a model from the cache, `org/name`, or a dataset, `hf:org/name`, or one of its revisions, `org/name@revision`: a branch, a tag, a
 * commit or its beginning. What other revisions share stays.
 *
 * @throws LowrankError `model`: the cache has no such model or dataset; `config`: it is being downloaded.
 */
export async function removeCached(name: string, cache = cacheFolder()): Promise<RemovedModel> {
  const kind = name.startsWith(datasetPrefix) ? 'dataset' : 'model'
  const parsed = parseHubName(kind === 'dataset' ? name.slice(datasetPrefix.length) : name)
  if (parsed === undefined) {
    throw new LowrankError('model', `"${name}" is not the name of a model or a dataset on the hub`, {
      hint: 'ORG/NAME or ORG/NAME@REVISION is expected, with hf: in front of a dataset: "lowrank models" lists what the cache has.',
    })
  }
  const { revision } = parsed
  const repo = new CachedRepo(parsed.id, cache, kind)
  const id = nameOf(repo)
  const all = await revisionsOf(repo)
  const chosen = all.filter((one) => revision === undefined || isNamed(one, revision))
  if (chosen.length === 0) throw await notCached({ name, cache, parsed, kind }, all)
  if (new Set(chosen.map((one) => one.revision)).size > 1 && revision !== undefined) {
    throw new LowrankError('model', `${name} is not one revision: ${chosen.map((one) => one.revision).join(', ')}`)
  }
  await mkdir(dirname(repo.lock), { recursive: true })
  const release = await takeLock(repo.lock, `${id} is in use, by a download`)
  try {
    const before = await bytesIn(repo.folder)
    if (chosen.length === all.length) await rm(repo.folder, { recursive: true, force: true })
    else for (const one of chosen) await removeRevision(repo, one)
    const revisions = chosen.flatMap((one) => one.revision ?? [])
    return { id, revisions, bytes: before - (await bytesIn(repo.folder)) }
  } finally {
    await release()
  }
}

function isNamed({ revision: commit, refs }: CachedModel, revision: string): boolean {
  if (refs.includes(revision)) return true
  return commit !== undefined && /^[0-9a-f]{7,40}$/.test(revision) && commit.startsWith(revision)
}

interface NotCached {
  readonly name: string
  readonly cache: string
  readonly parsed: { readonly id: string }
  readonly kind: RepoKind
}

async function notCached(
  { name, cache, parsed, kind }: NotCached,
  others: readonly CachedModel[],
): Promise<LowrankError> {
  const has = others.flatMap((one) => one.revision ?? [])
  const twin = new CachedRepo(parsed.id, cache, kind === 'model' ? 'dataset' : 'model')
  const hasTwin = (await revisionsOf(twin)).length > 0
  const revisions = has.length > 0 ? `It has the revisions ${has.join(', ')}.` : '"lowrank models" lists what it has.'
  return new LowrankError('model', `the cache ${cache} has no ${name}`, {
    hint: hasTwin && has.length === 0 ? `It has the ${twin.kind} ${nameOf(twin)}.` : revisions,
  })
}

/** What stands before the name of a dataset. */
const datasetPrefix = 'hf:'

function nameOf({ id, kind }: CachedRepo): string {
  return kind === 'dataset' ? `${datasetPrefix}${id}` : id
}

/** That of `models--org--name` or `datasets--org--name`. */
function repoOf(folder: string, cache: string): CachedRepo | undefined {
  const [first, ...parts] = folder.split('--')
  const id = parts.join('/')
  const kind = ({ models: 'model', datasets: 'dataset' } as const)[first ?? '']
  return kind !== undefined && parseHubName(id) !== undefined ? new CachedRepo(id, cache, kind) : undefined
}

async function revisionsOf(repo: CachedRepo): Promise<CachedModel[]> {
  const { kind, folder, blobs } = repo
  const id = nameOf(repo)
  const refs = await refsOf(join(folder, 'refs'))
  const found: CachedModel[] = []
  const used = new Set<string>()
  for (const commit of await readdir(join(folder, 'snapshots')).catch(() => [])) {
    const snapshot = join(folder, 'snapshots', commit)
    const files = await contentsOf(snapshot)
    for (const file of files) used.add(file)
    const named = [...refs].filter(([, at]) => at === commit).map(([ref]) => ref)
    found.push({ id, kind, revision: commit, refs: named, ...(await measure(files, snapshot)), folder: snapshot })
  }
  const others = (await contentsOf(blobs)).filter((file) => !used.has(file))
  if (others.length > 0)
    found.push({ id, kind, revision: undefined, refs: [], ...(await measure(others, blobs)), folder })
  return found
}

async function measure(files: readonly string[], folder: string): Promise<Pick<CachedModel, 'size' | 'lastUsed'>> {
  const stats = (await Promise.all(files.map((file) => stat(file).catch(() => undefined)))).filter(
    (one) => one !== undefined,
  )
  const times = stats.map(({ atimeMs }) => atimeMs)
  const lastUsed = times.length > 0 ? Math.max(...times) : ((await stat(folder).catch(() => undefined))?.mtimeMs ?? 0)
  return { size: stats.reduce((sum, { size }) => sum + size, 0), lastUsed: new Date(lastUsed).toISOString() }
}

/** The files below a folder, links followed. */
async function contentsOf(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => [])
  const files = entries.filter((entry) => !entry.isDirectory()).map(({ parentPath, name }) => join(parentPath, name))
  const found = await Promise.all(files.map((file) => realpath(file).catch(() => undefined)))
  return [...new Set(found.filter((file) => file !== undefined))]
}

/** The commit of each branch and tag, as it was last asked for. */
async function refsOf(folder: string): Promise<ReadonlyMap<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => [])
  const files = entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name))
  const refs = files.map(
    async (file) =>
      [file.slice(folder.length + 1).replaceAll('\\', '/'), (await readFile(file, 'utf8')).trim()] as const,
  )
  return new Map(await Promise.all(refs))
}

/** Removes a commit, and the contents that no other one has. */
async function removeRevision(repo: CachedRepo, { revision, refs }: CachedModel): Promise<void> {
  if (revision === undefined) return
  const others = (await readdir(join(repo.folder, 'snapshots'))).filter((commit) => commit !== revision)
  const kept = new Set((await Promise.all(others.map((commit) => linkedBlobs(repo, commit)))).flat())
  const blobs = (await linkedBlobs(repo, revision)).filter((blob) => !kept.has(blob))
  for (const ref of refs) await rm(join(repo.folder, 'refs', ref), { force: true })
  // The listing of Python's library among them.
  const parts = [
    repo.snapshot(revision),
    join(repo.folder, '.no_exist', revision),
    join(repo.folder, 'trees', `${revision}.json`),
  ]
  for (const path of [...parts, ...blobs]) await rm(path, { recursive: true, force: true })
}

/** The contents that a commit links to. */
async function linkedBlobs(repo: CachedRepo, commit: string): Promise<string[]> {
  const entries = await readdir(repo.snapshot(commit), { recursive: true, withFileTypes: true })
  const links = entries.filter((entry) => entry.isSymbolicLink())
  const targets = links.map(async ({ parentPath, name }) => resolve(parentPath, await readlink(join(parentPath, name))))
  return (await Promise.all(targets)).filter((target) => dirname(target) === resolve(repo.blobs))
}

/** Bytes of the files below a folder, links not followed, each once. */
async function bytesIn(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => [])
  const files = entries.filter((entry) => entry.isFile())
  const stats = await Promise.all(files.map(({ parentPath, name }) => lstat(join(parentPath, name))))
  return [...new Map(stats.map(({ ino, size }) => [ino, size])).values()].reduce((sum, size) => sum + size, 0)
}
