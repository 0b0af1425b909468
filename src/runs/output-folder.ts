import { mkdir, readdir, readFile, realpath, rm, rmdir, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { writeError } from '../formats/atomic.ts'
import { isShard } from '../formats/checkpoint.ts'
import { hashText } from '../formats/hash.ts'
import { singleName } from '../formats/safetensors.ts'
import { takeLock } from '../formats/lock.ts'
import { messageOf } from '../formats/json.ts'
import { cardName } from '../model/peft/card.ts'
import { LowrankError } from '../util/errors.ts'
import { foreignCheckpoints } from './checkpoint.ts'
import { readRecord, type RunRecord } from './record.ts'

export interface ClaimOptions {
  /** Made where it is missing. */
  readonly folder: string
  /** What the run reads, by the option that names it. */
  readonly reads: Readonly<Record<string, string | undefined>>
  /** Names of the files that the run writes there. */
  readonly writes: readonly string[]
  /** Whether files that no run of Lowrank wrote may be replaced. */
  readonly overwrite: boolean
}

/** The output folder of a run, which no other run writes to meanwhile. */
export interface OutputFolder {
  /** The record of the run of ours that was here before. */
  readonly earlier: Partial<RunRecord> | undefined
  /** Whether a file of this name was written by a run of ours; of a model card, its hash says so. */
  isOurs(name: string): boolean
  /** Names of the files that runs of ours have written and this one will write. */
  readonly files: readonly string[]
  /** Whether a model card may be written: none is there, or one of ours. */
  readonly writesCard: boolean
  /** Lets others write there. `unused`: the folder is gone again, if it was made for this run and holds nothing. */
  release(options?: { readonly unused?: boolean }): Promise<void>
}

const lockName = '.lowrank.lock'

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
    await refuseReads(options)
    giveBack = await takeLock(join(folder, lockName), `outputDir: another run writes to ${folder}`)
    const earlier = await readRecord(folder)
    const isOurs = oursAmong(earlier)
    if (!overwrite) await refuseForeign(options, isOurs)
    await tryWriting(options)
    const writesCard = overwrite || (await cardIsOurs(folder, earlier))
    const unlock = giveBack
    return {
      earlier,
      isOurs,
      files: [...new Set([...namesIn(earlier?.files), ...options.writes])],
      writesCard,
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
      hint: 'There is a file in its place: choose another folder.',
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

/** By the real paths: a link may lead anywhere. */
async function refuseReads({ folder, reads, writes }: ClaimOptions): Promise<void> {
  const here = await realpath(folder)
  for (const [option, path] of Object.entries(reads)) {
    const target = path === undefined ? undefined : await realpath(path).catch(() => undefined)
    if (target === undefined) continue
    const hint = 'Choose another folder: what a run starts from is needed to resume and to repeat it.'
    if (target === here) {
      throw new LowrankError('config', `outputDir: ${folder} is the folder that the run reads (${option} ${path})`, {
        hint,
      })
    }
    if (dirname(target) === here && writes.includes(basename(target))) {
      throw new LowrankError(
        'config',
        `outputDir: in ${folder} the run would replace what it reads (${option} ${path})`,
        { hint },
      )
    }
  }
}

/** Nothing is ours in a folder without the record of a run of ours. Of how many parts a model has, it does not say. */
function oursAmong(earlier: OutputFolder['earlier']): (name: string) => boolean {
  const files = namesIn(earlier?.files)
  return (name) => files.includes(isShard(name) ? singleName : name)
}

/** Checkpoints say themselves whose they are. */
async function refuseForeign({ folder, writes }: ClaimOptions, isOurs: OutputFolder['isOurs']): Promise<void> {
  const names = await readdir(folder)
  const files = names.filter((name) => (writes.includes(name) || isShard(name)) && !isOurs(name))
  const foreign = [...(await nonEmpty(folder, files)), ...(await foreignCheckpoints(folder))]
  if (foreign.length === 0) return
  const listed = foreign.slice(0, 5).join(', ') + (foreign.length > 5 ? ` and ${foreign.length - 5} more` : '')
  throw new LowrankError('config', `outputDir: ${folder} holds what no run of Lowrank wrote: ${listed}`, {
    hint: 'Choose another folder, move them, or have them replaced with "overwriteOutputDir" (--overwrite-output-dir).',
  })
}

/** A run that was killed at its beginning leaves empty files. */
async function nonEmpty(folder: string, names: readonly string[]): Promise<string[]> {
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(folder, name))).size))
  return names.filter((_, i) => sizes[i] !== 0)
}

/** A card that no run has written, or that somebody has changed since, has another hash than those of ours. */
async function cardIsOurs(folder: string, earlier: OutputFolder['earlier']): Promise<boolean> {
  const text = await readFile(join(folder, cardName), 'utf8').catch(() => undefined)
  return text === undefined || cardsOf(earlier).includes(hashText(text))
}

/** The texts of a list that may have been edited. */
function namesIn(list: unknown): readonly string[] {
  return Array.isArray(list) ? list.filter((one): one is string => typeof one === 'string') : []
}

/** Hashes of the model cards that runs have written to a folder. */
export function cardsOf(record: Partial<RunRecord> | undefined): readonly string[] {
  return namesIn(record?.cards)
}
