import { open, readFile, realpath, rm, type FileHandle } from 'node:fs/promises'
import { dirname, join, sep } from 'node:path'
import { removeLeftovers, writeError, writeFileAtomic } from '../formats/atomic.ts'
import { removeFolderAtomic } from '../formats/atomic-folder.ts'
import { LowrankError } from '../util/errors.ts'
import { listCheckpoints, settleCheckpoints, type Checkpoint } from './checkpoint.ts'
import type { TrainEvent } from '../train/events.ts'
import { cardsOf, placesOf, recordNames, type OutputFolder } from './output-folder.ts'
import { metricsName, recordName, type RunRecord } from './record.ts'
import type { RunInputs } from './run-inputs.ts'

interface RunFilesOptions {
  readonly folder: string
  /** The same folder, taken. */
  readonly output: OutputFolder
  readonly inputs: RunInputs
  readonly data: unknown
  /** Where the run goes on; undefined where it begins. */
  readonly from: Checkpoint | undefined
  /** Paths that the run reads: they must not be among what is removed. */
  readonly reads: readonly string[]
}

/** The record of a run in its output folder: `run.json` and, a line per event, `metrics.jsonl`. */
export class RunFiles {
  readonly folder: string
  /** What was removed, in words. */
  readonly removed: readonly string[]
  /** What the model completed before training, where the run goes on: reported already, to be compared with what it completes after. */
  readonly samples: readonly TrainEvent[]
  readonly #metrics: FileHandle
  #record: RunRecord

  private constructor(
    { folder, removed, samples }: Pick<RunFiles, 'folder' | 'removed' | 'samples'>,
    metrics: FileHandle,
    record: RunRecord,
  ) {
    this.folder = folder
    this.removed = removed
    this.samples = samples
    this.#metrics = metrics
    this.#record = record
  }

  /**
   * Starts the record of a run, or goes on with it from a checkpoint. What an earlier run left in the folder and is not of this one
   * is removed: checkpoints (where the run goes on: those that come later), and a model where this run makes an adapter, or the
   * other way round.
   */
  static async open({ folder, output, inputs, data, from, reads }: RunFilesOptions): Promise<RunFiles> {
    try {
      await settleCheckpoints(folder)
      await removeLeftovers(folder)
      const inPlace = from !== undefined && (await realpath(dirname(from.folder))) === (await realpath(folder))
      const checkpoints = await listCheckpoints(folder)
      const others = checkpoints.filter(({ step }) => !(inPlace && step <= from.record.state.step))
      const why = inPlace ? `removed, since the run continues from ${from.folder}` : 'removed of an earlier run'
      const removed = await removeCheckpoints(
        others.map((one) => one.folder),
        { why, reads },
      )
      const { kind, names } = output.removes
      for (const name of names) await rm(join(folder, name))
      if (names.length > 0) removed.push(`removed the ${kind} of an earlier run: ${names.join(', ')} in ${folder}`)
      const metricsPath = join(folder, metricsName)
      const metrics = from === undefined ? '' : await metricsUpTo(from)
      await writeFileAtomic(metricsPath, metrics)
      const cards = cardsOf(output.earlier)
      const now = new Date().toISOString()
      const record: RunRecord = {
        config: inputs.config,
        versions: inputs.versions,
        hashes: inputs.hashes,
        ...(inputs.origins === undefined ? {} : { origins: inputs.origins }),
        data,
        startedAt: from?.record.startedAt ?? now,
        status: 'running',
        files: listOf(output.files, recordNames),
        ...(cards.length > 0 ? { cards } : {}),
        ...(from === undefined
          ? {}
          : {
              resumed: [
                ...((inPlace ? output.earlier?.resumed : undefined) ?? []),
                { at: now, step: from.record.state.step, path: from.folder },
              ],
            }),
      }
      const parts = { folder, removed, samples: samplesIn(metrics) }
      const files = new RunFiles(parts, await open(metricsPath, 'a'), record)
      await files.update({})
      return files
    } catch (cause) {
      if (cause instanceof LowrankError) throw cause
      throw writeError(folder, cause as Error)
    }
  }

  get startedAt(): string {
    return this.#record.startedAt
  }

  /** Adds an event to `metrics.jsonl`. */
  async log(event: TrainEvent): Promise<void> {
    const line = `${JSON.stringify({ time: new Date().toISOString(), ...event })}\n`
    await this.#metrics.appendFile(line).catch((error: Error) => {
      throw writeError(join(this.folder, metricsName), error)
    })
  }

  /** Puts all events so far on disk; the bytes they take. */
  async sync(): Promise<number> {
    await this.#metrics.sync()
    return (await this.#metrics.stat()).size
  }

  /** Notes the names of files that are about to be written, so that they are known for ours wherever the run ends. */
  async addFiles(names: readonly string[]): Promise<void> {
    await this.update({ files: listOf(this.#record.files ?? [], names) })
  }

  async update(changes: Partial<RunRecord>): Promise<void> {
    this.#record = { ...this.#record, ...changes }
    await writeFileAtomic(join(this.folder, recordName), `${JSON.stringify(this.#record, null, 2)}\n`)
  }

  async close(): Promise<void> {
    await this.#metrics.close()
  }
}

function listOf(...names: readonly (readonly string[])[]): readonly string[] {
  return [...new Set(names.flat())].sort()
}

/** Removes checkpoints, or refuses where the run reads one of them. */
async function removeCheckpoints(
  folders: readonly string[],
  { why, reads }: { readonly why: string; readonly reads: readonly string[] },
): Promise<string[]> {
  const targets = (await Promise.all(reads.map(placesOf))).flat()
  for (const folder of folders) {
    const inside = `${await realpath(folder)}${sep}`
    if (!targets.some((target) => `${target}${sep}`.startsWith(inside))) continue
    throw new LowrankError(
      'config',
      `outputDir ${dirname(folder)}: the run reads ${folder}, which starting it would remove`,
      { hint: 'Choose another outputDir, or move the checkpoint.' },
    )
  }
  for (const folder of folders) await removeFolderAtomic(folder)
  return folders.length === 0 ? [] : [`${why}: ${folders.join(', ')}`]
}

/** The events that a run had reported when it wrote a checkpoint: whole lines, as far as they are still there. */
async function metricsUpTo({ folder, record }: Checkpoint): Promise<string> {
  const path = join(dirname(folder), metricsName)
  const bytes = (await readFile(path).catch(() => Buffer.alloc(0))).subarray(0, record.metricsBytes)
  return bytes.toString('utf8', 0, bytes.lastIndexOf('\n') + 1)
}

function samplesIn(metrics: string): TrainEvent[] {
  const lines = metrics.split('\n').filter((line) => line.includes('"type":"sample"'))
  return lines.map((line) => {
    const { time: _, ...event } = JSON.parse(line) as TrainEvent & { readonly time: string }
    return event
  })
}
