import type { Stats } from 'node:fs'
import { lstat, mkdir, readdir, readFile, readlink, realpath, rm, rmdir, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { isResult, type ResultKind } from '../export/save.ts'
import { fileInPlaceHint, writeError } from '../formats/atomic.ts'
import { isShard } from '../formats/checkpoint.ts'
import { hashText } from '../formats/hash.ts'
import { takeLock } from '../formats/lock.ts'
import { isJsonObject } from '../formats/json.ts'
import { cardName } from '../model/peft/card.ts'
import { tokenizerFiles } from '../text/tokenizer.ts'
import { LowrankError, messageOf } from '../util/errors.ts'
import { foreignCheckpoints } from './checkpoint.ts'
import { metricsName, readRecord, recordName, reportName, type RunRecord } from './record.ts'

export interface ClaimOptions {
  /** Made where it is missing. */
  readonly folder: string
  /** What the run reads, by the option that names it. */
  readonly reads: Readonly<Record<string, string | undefined>>
  /** What the run makes, and the names of the files that it writes; a model in several parts has more, which are numbered. */
  readonly makes: ResultKind
  readonly writes: readonly string[]
  /** Whether files that no run of Lowrank wrote may be replaced. */
  readonly overwrite: boolean
}

/** The output folder of a run, which no other run writes to meanwhile. */
export interface OutputFolder {
  /** The record of the run of ours that was here before. */
  readonly earlier: Partial<RunRecord> | undefined
  /** Names of the files there that runs of ours have written, as far as this run leaves them until it has a result. */
  readonly files: readonly string[]
  /** Those that it removes: a folder with an adapter and a model would be loaded as the wrong one. */
  readonly removes: { readonly kind: ResultKind; readonly names: readonly string[] }
  /** Whether a model card may be written: none is there, or one of ours. */
  readonly writesCard: boolean
  /** Lets others write there. `unused`: the folder is gone again, if it was made for this run and holds nothing. */
  release(options?: { readonly unused?: boolean }): Promise<void>
}

/** Names of the files that say what a run did. */
export const recordNames: readonly string[] = [recordName, metricsName, reportName]

/** Who has a file of this name writes to the folder. */
export const lockName = '.lowrank.lock'

/**
 * Takes the output folder of a run before anything is computed: it can be written, nothing that the run reads lies in its way, nothing
 * that others wrote would be replaced, and no other run writes there.
 *
 * @throws LowrankError `config`: what is in the way; `io`: it cannot be written.
 */
export async function claimOutputFolder(options: ClaimOptions): Promise<OutputFolder> {
  const { folder, overwrite } = options
  const created = await makeFolder(folder)
  const leave = async (): Promise<void> => {
    for (let path = resolve(folder); created !== undefined && path.length >= created.length; path = dirname(path)) {
      const emptied = await rmdir(path).then(
        () => true,
        () => false,
      )
      if (!emptied) return
    }
  }
  let giveBack: (() => Promise<void>) | undefined
  try {
    await refuseFolder(options)
    giveBack = await takeLock(join(folder, lockName), `outputDir: another run writes to ${folder}`)
    const earlier = await readRecord(folder)
    const names = await readdir(folder)
    const card = await readFile(join(folder, cardName), 'utf8').catch(() => undefined)
    const isOwnCard = card !== undefined && cardsOf(earlier).includes(hashText(card))
    const isOwn = ownBy(earlier)
    const own = names.filter((name) => (name === cardName ? isOwnCard : isOwn(name)))
    const other = options.makes === 'model' ? 'adapter' : 'model'
    const removes = own.filter((name) => isResult(other, name))
    await refuseReads(options, removes)
    await refuseForeign(options, { names, own })
    await tryWriting(options)
    const unlock = giveBack
    return {
      earlier,
      files: own.filter((name) => name !== cardName && !removes.includes(name)),
      removes: { kind: other, names: removes },
      writesCard: overwrite || !names.includes(cardName) || isOwnCard,
      release: async ({ unused = false } = {}) => {
        await unlock()
        if (unused) await leave()
      },
    }
  } catch (error) {
    await giveBack?.()
    await leave()
    throw error
  }
}

/** The first folder that had to be made. */
async function makeFolder(folder: string): Promise<string | undefined> {
  try {
    return await mkdir(folder, { recursive: true })
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const taken = code === 'EEXIST' || code === 'ENOTDIR'
    if (!taken) throw writeError(folder, cause as Error)
    throw new LowrankError('config', `outputDir: cannot make ${folder}: ${messageOf(cause)}`, {
      cause,
      hint: fileInPlaceHint,
    })
  }
}

/** Writes the longest path that a run writes: a system may allow it no longer, or allow folders and no files. */
async function tryWriting({ folder, writes }: ClaimOptions): Promise<void> {
  // As long as the name of a checkpoint that is being written.
  const trial = join(folder, '.lowrank-trial-000000000')
  const longest = writes.reduce((a, b) => (a.length > b.length ? a : b), '')
  const path = join(trial, `.${longest}.01234567.tmp`)
  try {
    await rm(trial, { recursive: true, force: true })
    await mkdir(trial)
    await writeFile(path, '')
  } catch (error) {
    throw writeError(path, error as Error)
  } finally {
    await rm(trial, { recursive: true, force: true })
  }
}

const readsHint = 'Choose another folder: what a run starts from is needed to resume and to repeat it.'

/** By the real paths: a link may lead anywhere. */
async function refuseFolder({ folder, reads }: ClaimOptions): Promise<void> {
  const here = await realpath(folder)
  for (const [option, path] of Object.entries(reads)) {
    if (path === undefined || (await placesOf(path)).at(-1) !== here) continue
    throw new LowrankError('config', `outputDir: ${folder} is the folder that the run reads (${option} ${path})`, {
      hint: readsHint,
    })
  }
}

/** What is read lies beside what is written by another name, also where links lead to it through the folder. */
async function refuseReads({ folder, reads, ...options }: ClaimOptions, removes: readonly string[]): Promise<void> {
  const here = await realpath(folder)
  for (const [option, path] of Object.entries(reads)) {
    const places = path === undefined ? [] : await placesOf(path)
    const names = places.filter((place) => dirname(place) === here).map((place) => basename(place))
    const name = names.find((one) => isWritten(options, one) || removes.includes(one))
    if (name === undefined) continue
    const what = isWritten(options, name) ? 'replace' : 'remove'
    throw new LowrankError(
      'config',
      `outputDir: in ${folder} the run would ${what} ${name}, which it reads (${option} ${path})`,
      { hint: readsHint },
    )
  }
}

/** The real places that a path leads to: where it lies, and, where that is a link, each on the way to the last. */
export async function placesOf(path: string): Promise<readonly string[]> {
  const places: string[] = []
  let next = path
  // As many links as Linux follows.
  while (places.length <= 40) {
    const parent = await realpath(dirname(next)).catch(() => undefined)
    if (parent === undefined) break
    const place = join(parent, basename(next))
    places.push(place)
    const target = await readlink(place).catch(() => undefined)
    if (target === undefined) break
    next = resolve(parent, target)
  }
  return places
}

function isWritten({ makes, writes }: Pick<ClaimOptions, 'makes' | 'writes'>, name: string): boolean {
  return writes.includes(name) || (makes === 'model' && isShard(name))
}

/**
 * Whether runs of ours wrote a file of this name, by what the last says of them; nothing is ours without its record. Earlier versions did
 * not list the files: there it is what a run of the kind writes.
 */
function ownBy(earlier: OutputFolder['earlier']): (name: string) => boolean {
  if (earlier === undefined) return () => false
  const listed = earlier.files === undefined ? undefined : textsIn(earlier.files)
  if (listed !== undefined) return (name) => recordNames.includes(name) || listed.includes(name)
  const method = isJsonObject(earlier.config) ? earlier.config['method'] : undefined
  const kind = method === 'full' ? 'model' : 'adapter'
  return (name) => recordNames.includes(name) || tokenizerFiles.includes(name) || isResult(kind, name)
}

/** Of checkpoints, they say themselves whose they are. A folder is not replaced by a file, whoever asks for it. */
async function refuseForeign(
  { folder, overwrite, ...options }: ClaimOptions,
  { names, own }: { readonly names: readonly string[]; readonly own: readonly string[] },
): Promise<void> {
  const inWay = names.filter((name) => isWritten(options, name))
  const folders = await only(folder, inWay, (found) => found.isDirectory())
  if (folders.length > 0) {
    throw new LowrankError(
      'config',
      `outputDir: in ${folder} there are folders instead of files: ${folders.join(', ')}`,
      {
        hint: 'Choose another folder, or move them.',
      },
    )
  }
  if (overwrite) return
  const others = inWay.filter((name) => !own.includes(name))
  // A run that was killed at its beginning leaves empty files.
  const filled = await only(folder, others, (found) => found.size !== 0)
  const foreign = [...filled, ...(await foreignCheckpoints(folder))]
  if (foreign.length === 0) return
  const listed = foreign.slice(0, 5).join(', ') + (foreign.length > 5 ? ` and ${foreign.length - 5} more` : '')
  throw new LowrankError('config', `outputDir: ${folder} holds what no run of Lowrank wrote: ${listed}`, {
    hint: 'Choose another folder, move them, or have them replaced with "overwriteOutputDir" (--overwrite-output-dir).',
  })
}

/** Those of the names in a folder that are something; of a link it is the link itself that is asked, which may lead nowhere. */
async function only(folder: string, names: readonly string[], is: (found: Stats) => boolean): Promise<string[]> {
  const found = await Promise.all(names.map((name) => lstat(join(folder, name))))
  return names.filter((_, i) => is(found[i]!))
}

/** Hashes of the model cards that runs have written to a folder. */
export function cardsOf(record: Partial<RunRecord> | undefined): readonly string[] {
  return textsIn(record?.cards)
}

/** The texts of a list that may have been edited. */
function textsIn(list: unknown): readonly string[] {
  return Array.isArray(list) ? list.filter((one): one is string => typeof one === 'string') : []
}
