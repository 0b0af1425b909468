import { readdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { isDataName } from '../text/readers/sources.ts'
import type { DatasetName } from '../text/readers/index.ts'
import { extensionOf } from '../text/readers/records.ts'
import { LowrankError } from '../util/errors.ts'
import { CachedRepo, cacheFolder, commitPattern } from './cache.ts'
import { addressOf, type Asked, hubOf, strange } from './client.ts'
import { askCommit, askFiles, download, waitForLock } from './download.ts'
import type { Progress } from './progress.ts'

/**
 * The files of a split of a dataset, in the cache, downloaded where they are not there: Parquet where it has that, else JSON, else tables.
 *
 * @throws LowrankError `data`, `io`: it cannot be had, or has no such files.
 */
export async function fetchDataset(
  { id, revision = 'main', split }: DatasetName,
  { signal, progress }: { readonly signal: AbortSignal; readonly progress: Progress },
): Promise<string[]> {
  const repo = new CachedRepo(id, cacheFolder(), 'dataset')
  const { offline, ...hub } = hubOf(process.env)
  const asked: Asked = { ...hub, kind: 'dataset', id, revision, signal }
  if (offline) return fromCache(repo, asked, split)
  let commit: string
  try {
    commit = commitPattern.test(revision) ? revision : await askCommit(asked)
  } catch (error) {
    if (signal.aborted || !(error instanceof LowrankError && error.code === 'io')) throw error
    const found = await fromCache(repo, asked, split).catch(() => undefined)
    if (found === undefined) throw error
    progress.messages.push(`${error.message}; going on with what the cache has of it`)
    return found
  }
  const files = await askFiles(asked, commit)
  const names = chooseFiles(asked, split, [...files.keys()])
  const wrong = names.find((name) =>
    name.split('/').some((part) => part === '..' || part === '' || /[\\:\0]/.test(part)),
  )
  if (wrong !== undefined)
    throw strange(asked, `has the file ${JSON.stringify(wrong).slice(0, 200)}, whose name leads elsewhere`)
  const release = await waitForLock(repo, { asked, progress })
  try {
    await download(
      repo,
      commit,
      names.map((name) => files.get(name)!),
      { asked, progress },
    )
  } finally {
    await release()
  }
  await repo.noteCommit(revision, commit).catch(() => undefined)
  return names.map((name) => join(repo.snapshot(commit), name))
}

/** What the cache has of a split, where that is all of it as far as the names of its files say. */
async function fromCache(repo: CachedRepo, asked: Asked, split: string): Promise<string[]> {
  const { id, revision } = asked
  const commit = await repo.commitOf(revision)
  const folder = repo.snapshot(commit ?? '')
  const entries =
    commit === undefined ? [] : await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => [])
  const found = entries
    .filter((entry) => !entry.isDirectory())
    .map(({ parentPath, name }) =>
      join(parentPath, name)
        .slice(folder.length + 1)
        .replaceAll('\\', '/'),
    )
  if (found.some(isDataName)) {
    const names = chooseFiles(asked, split, found)
    const parts = Number(/-of-(\d+)/.exec(names[0] ?? '')?.[1] ?? names.length)
    if (parts === names.length) return names.map((name) => join(folder, name))
  }
  throw new LowrankError(
    'data',
    `${id}: HF_HUB_OFFLINE is set, and the cache ${dirname(repo.folder)} has not all of its split "${split}"`,
    {
      hint: 'Unset HF_HUB_OFFLINE once to download it, or set HF_HUB_CACHE (HF_HOME) to the cache that has it.',
    },
  )
}

/** Which formats are taken, where a dataset has several. */
const preferred = [['.parquet'], ['.jsonl', '.ndjson', '.json'], ['.csv'], ['.tsv']]

/** As the hub finds splits: a word of a path, such as `data/train-00000-of-00002.parquet`. */
const splitWord = /(?:^|[^a-z0-9])(train|test|validation|valid|val|dev|eval)(?=[^a-z0-9]|\d|$)/i

/** The files of a split by their names, sorted. */
function chooseFiles(asked: Asked, split: string, all: readonly string[]): string[] {
  const { id, revision } = asked
  const where = `${id}${revision === 'main' ? '' : `@${revision}`}`
  const page = `Its files are at ${addressOf(asked)}/tree/${revision}.`
  const names = all.filter((name) => isDataName(name) && !name.split('/').some((part) => part.startsWith('.'))).sort()
  const ofFormat = preferred
    .map((extensions) => names.filter((name) => extensions.includes(extensionOf(name))))
    .find((some) => some.length > 0)
  if (ofFormat === undefined) {
    throw new LowrankError('data', `the dataset ${where} has no files of Parquet, JSON or tables: it cannot be read`, {
      hint: `Datasets that are made by a program of their own are not run. ${page}`,
    })
  }
  const [word = '', folder = ''] = split.split('/').reverse()
  const isOfSplit = new RegExp(`(?:^|[^a-z0-9])${word.replaceAll('.', '\\.')}(?=[^a-z0-9]|\\d|$)`, 'i')
  const inFolder = folder === '' ? ofFormat : ofFormat.filter((name) => name.startsWith(`${folder}/`))
  const named = inFolder.filter((name) => isOfSplit.test(name.slice(folder.length)))
  // Without any word of a split, all of it is for training.
  const found =
    named.length === 0 && word === 'train' && !inFolder.some((name) => splitWord.test(name)) ? inFolder : named
  if (found.length === 0) {
    const splits = [...new Set(ofFormat.flatMap((name) => splitWord.exec(name)?.[1] ?? []))]
    throw new LowrankError(
      'data',
      `the dataset ${where} has no split "${split}"${splits.length > 0 ? `; it has ${splits.join(', ')}` : ''}`,
      {
        hint: page,
      },
    )
  }
  const folders = [...new Set(found.map((name) => configOf(name, isOfSplit)))]
  if (folders.length > 1) {
    throw new LowrankError(
      'data',
      `the dataset ${where} has its split "${split}" in ${folders.length} folders: ${folders.slice(0, 8).join(', ')}`,
      {
        hint: `Name one: hf:${where}/${folders[0] === '' ? folders[1] : folders[0]}/${word}`,
      },
    )
  }
  return found
}

/** The folder that tells files of one split apart from those of another with the same name. */
function configOf(name: string, isOfSplit: RegExp): string {
  const folder = dirname(name)
  return folder === '.' ? '' : isOfSplit.test(basename(folder)) ? configOf(folder, isOfSplit) : folder
}
