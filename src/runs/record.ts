import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isJsonObject } from '../formats/json.ts'
import type { RunInputs } from './run-inputs.ts'

/** What a run says of itself: its record, its events, a line each, and the page that is made from both. */
export const recordName = 'run.json'
export const metricsName = 'metrics.jsonl'
export const reportName = 'report.html'

/** What `run.json` says of a run. */
export interface RunRecord {
  /** The resolved configuration. */
  readonly config: unknown
  readonly versions: RunInputs['versions']
  /** SHA-256 of what went in, by what it is. */
  readonly hashes: RunInputs['hashes']
  /** The commits of what is from the hub. */
  readonly origins?: RunInputs['origins']
  /** What the training data became. */
  readonly data: unknown
  readonly startedAt: string
  readonly status: 'running' | 'done' | 'cancelled' | 'failed'
  /** When the run went on, and from which checkpoint. */
  readonly resumed?: readonly { readonly at: string; readonly step: number; readonly path: string }[]
  /** Wall time in seconds, without pauses, and highest resident memory in bytes; set at the end. */
  readonly seconds?: number
  readonly peakMemory?: number
  readonly result?: unknown
  /** Names of the files that runs have written to the folder; those of earlier versions do not list them. */
  readonly files?: readonly string[]
  /** SHA-256 of the model cards that runs have written to the folder. */
  readonly cards?: readonly string[]
}

/** The record that a run of ours left in a folder; undefined where there is none, or one of another program. */
export async function readRecord(folder: string): Promise<Partial<RunRecord> | undefined> {
  try {
    const record: unknown = JSON.parse(await readFile(join(folder, recordName), 'utf8'))
    const versions = isJsonObject(record) ? record['versions'] : undefined
    return isJsonObject(versions) && 'lowrank' in versions ? (record as Partial<RunRecord>) : undefined
  } catch {
    return undefined
  }
}
