import { link, mkdir, readFile, readlink, rm, stat, symlink } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { getHFHubCachePath, getRepoFolderName } from '@huggingface/hub'
import { writeFileAtomic } from '../formats/atomic.ts'
import type { RepoKind } from './client.ts'

/** What the hub calls a commit. */
export const commitPattern = /^[0-9a-f]{40}$/

/** The folder in which all programs keep what they have of the hub: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in `~/.cache/huggingface`. */
export function cacheFolder(): string {
  return getHFHubCachePath().replace(/^~(?=$|[/\\])/, homedir())
}

/**
 * What the cache has of a repository, laid out as Python's huggingface_hub does: contents in `blobs`, named by their hash; for each commit a
 * folder in `snapshots` with links to them; in `refs` the commit of each branch or tag.
 */
export class CachedRepo {
  readonly id: string
  readonly kind: RepoKind
  readonly folder: string
  readonly blobs: string
  /** Taken by who downloads into the repository, or removes it. */
  readonly lock: string

  constructor(id: string, cache = cacheFolder(), kind: RepoKind = 'model') {
    const name = getRepoFolderName({ type: kind, name: id })
    this.id = id
    this.kind = kind
    this.folder = join(cache, name)
    this.blobs = join(this.folder, 'blobs')
    this.lock = join(cache, '.locks', name, 'lowrank.lock')
  }

  /** The folder of a commit, which serves as the folder of a model. */
  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit)
  }

  /** The commit of a branch or tag when it was last asked for. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (commitPattern.test(revision)) return revision
    const text = await readFile(join(this.folder, 'refs', revision), 'utf8').catch(() => undefined)
    const commit = text?.trim() ?? ''
    return commitPattern.test(commit) ? commit : undefined
  }

  /** Notes the commit of a branch or tag. */
  async noteCommit(revision: string, commit: string): Promise<void> {
    if (revision === commit || (await this.commitOf(revision)) === commit) return
    const path = join(this.folder, 'refs', revision)
    await mkdir(dirname(path), { recursive: true })
    await writeFileAtomic(path, commit)
  }

  /** Whether a commit has a file, as far as the cache knows: undefined where it has not been asked for. */
  async has(commit: string, name: string): Promise<boolean | undefined> {
    if (await isFile(join(this.snapshot(commit), name))) return true
    return (await isFile(this.#absent(commit, name))) ? false : undefined
  }

  /** Notes that a commit has no such file. */
  async noteAbsent(commit: string, name: string): Promise<void> {
    const path = this.#absent(commit, name)
    await mkdir(dirname(path), { recursive: true })
    await writeFileAtomic(path, '')
  }

  #absent(commit: string, name: string): string {
    return join(this.folder, '.no_exist', commit, name)
  }

  /** Makes a content of `blobs` a file of a commit. */
  async link(commit: string, name: string, hash: string): Promise<void> {
    const path = join(this.snapshot(commit), name)
    const blob = join(this.blobs, hash)
    const target = relative(dirname(path), blob)
    await mkdir(dirname(path), { recursive: true })
    if ((await readlink(path).catch(() => undefined)) === target) return
    await rm(path, { force: true })
    await symlink(target, path).catch(async (error: NodeJS.ErrnoException) => {
      // Windows allows symbolic links only to some; a hard link takes no memory either.
      if (error.code !== 'EPERM') throw error
      await link(blob, path)
    })
  }
}

export async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() === true
}
