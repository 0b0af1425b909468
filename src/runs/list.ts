import type { Dirent } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { LowrankError, messageOf } from '../util/errors.ts'
import { readRun, type Run } from './read.ts'

/** A run as a list shows it. */
export interface RunSummary extends Pick<Run, 'folder' | 'name' | 'status' | 'startedAt' | 'lastSign' | 'figures'> {
  readonly method: string | undefined
  readonly model: string | undefined
}

export interface RunList {
  /** The newest first. */
  readonly runs: readonly RunSummary[]
  /** Folders with a run.json that is none of a run, and why. */
  readonly unreadable: readonly { readonly folder: string; readonly reason: string }[]
}

/**
 * The runs in a folder: it and its subfolders, to a depth, that have a `run.json`. Hidden folders, `node_modules` and links are
 * passed over.
 *
 * @throws LowrankError `data` where the folder cannot be read.
 */
export async function listRuns(folder: string, depth: number): Promise<RunList> {
  const runs: RunSummary[] = []
  const unreadable: { folder: string; reason: string }[] = []
  for (const found of await runFolders(folder, depth)) {
    try {
      runs.push(summaryOf(await readRun(found)))
    } catch (error) {
      unreadable.push({ folder: found, reason: messageOf(error) })
    }
  }
  runs.sort((a, b) => (a.startedAt < b.startedAt ? 1 : a.startedAt > b.startedAt ? -1 : a.folder < b.folder ? -1 : 1))
  return { runs, unreadable }
}

function summaryOf(run: Run): RunSummary {
  const { folder, name, status, startedAt, lastSign, figures, config } = run
  const word = (key: string): string | undefined => (typeof config[key] === 'string' ? config[key] : undefined)
  return { folder, name, status, startedAt, lastSign, figures, method: word('method'), model: word('model') }
}

async function runFolders(folder: string, depth: number): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((cause: unknown) => {
    throw new LowrankError('data', `cannot list the runs of ${folder}: ${messageOf(cause)}`, {
      cause,
      hint: 'Give a folder that contains the output folders of runs.',
    })
  })
  return collect(folder, entries, depth)
}

async function collect(folder: string, entries: readonly Dirent[], depth: number): Promise<string[]> {
  const found = entries.some((entry) => entry.name === 'run.json' && entry.isFile()) ? [folder] : []
  if (depth === 0) return found
  for (const { name } of entries.filter((entry) => entry.isDirectory() && !/^\.|^node_modules$/.test(entry.name))) {
    const inner = join(folder, name)
    // What may not be read is not looked into.
    const inside = await readdir(inner, { withFileTypes: true }).catch(() => [])
    found.push(...(await collect(inner, inside, depth - 1)))
  }
  return found
}
