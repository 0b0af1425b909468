import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, readdir, rm, type FileHandle } from 'node:fs/promises'
import { basename, join, resolve, sep } from 'node:path'
import { writeFileAtomic } from '../formats/atomic.ts'
import { messageOf } from '../formats/json.ts'
import { LowrankError } from '../util/errors.ts'
import type { TrainEvent } from './events.ts'

/** What `run.json` says of a run. */
export interface RunRecord {
  /** The resolved configuration. */
  readonly config: unknown
  readonly versions: Readonly<Record<string, string>>
  /** SHA-256 of each file that went in, by what it is. */
  readonly hashes: Readonly<Record<string, string>>
  /** What the training data became. */
  readonly data: unknown
  readonly startedAt: string
  readonly status: 'running' | 'done' | 'cancelled' | 'failed'
  /** Wall time in seconds and highest resident memory in bytes; set at the end. */
  readonly seconds?: number
  readonly peakMemory?: number
  readonly result?: unknown
}

/** The record of a run in its output folder: `run.json` and, a line per event, `metrics.jsonl`. */
export class RunFiles {
  readonly folder: string
  readonly #metrics: FileHandle
  #record: RunRecord

  private constructor(folder: string, metrics: FileHandle, record: RunRecord) {
    this.folder = folder
    this.#metrics = metrics
    this.#record = record
  }

  /**
   * Starts a run in a folder, made where it is missing. Checkpoints of an earlier run there are removed, since they are not of
   * this one; `inputs` are paths that the run reads and that must not be among them.
   */
  static async create(
    folder: string,
    record: Omit<RunRecord, 'startedAt' | 'status'>,
    inputs: readonly string[],
  ): Promise<RunFiles> {
    try {
      await mkdir(folder, { recursive: true })
      const names = await readdir(folder)
      const checkpoints = names.filter((name) => /^checkpoint-\d+$/.test(name)).map((name) => resolve(folder, name))
      for (const checkpoint of checkpoints) {
        if (inputs.some((path) => `${resolve(path)}${sep}`.startsWith(`${checkpoint}${sep}`))) {
          throw new LowrankError(
            'config',
            `outputDir ${folder}: the run reads ${checkpoint}, which starting it would remove`,
            {
              hint: 'Choose another outputDir, or move the checkpoint.',
            },
          )
        }
      }
      for (const checkpoint of checkpoints) await rm(checkpoint, { recursive: true })
      const metrics = await open(join(folder, 'metrics.jsonl'), 'w')
      const files = new RunFiles(folder, metrics, {
        ...record,
        startedAt: new Date().toISOString(),
        status: 'running',
      })
      await files.update({})
      return files
    } catch (cause) {
      if (cause instanceof LowrankError) throw cause
      const { code } = cause as NodeJS.ErrnoException
      const taken = code === 'EEXIST' || code === 'ENOTDIR'
      throw new LowrankError(taken ? 'config' : 'io', `outputDir: cannot write to ${folder}: ${messageOf(cause)}`, {
        cause,
        hint: taken ? 'There is a file in its place: choose another folder.' : 'May you write there?',
      })
    }
  }

  /** Adds an event to `metrics.jsonl`. */
  async log(event: TrainEvent): Promise<void> {
    await this.#metrics.write(`${JSON.stringify({ time: new Date().toISOString(), ...event })}\n`)
  }

  async update(changes: Partial<RunRecord>): Promise<void> {
    this.#record = { ...this.#record, ...changes }
    await writeFileAtomic(join(this.folder, 'run.json'), `${JSON.stringify(this.#record, null, 2)}\n`)
  }

  async close(): Promise<void> {
    await this.#metrics.close()
  }
}

/** SHA-256 of the files' names and contents, as hex. */
export async function hashFiles(paths: readonly string[]): Promise<string> {
  const hash = createHash('sha256')
  for (const path of paths) {
    hash.update(basename(path)).update('\0')
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer)
  }
  return hash.digest('hex')
}

/** The files that make a model what it is: configuration, weights, tokenizer. */
export async function modelFiles(folder: string): Promise<string[]> {
  const names = await readdir(folder)
  const parts = names.filter((name) => /^(config|tokenizer|tokenizer_config)\.json$|\.safetensors$/.test(name))
  return parts.sort().map((name) => join(folder, name))
}
