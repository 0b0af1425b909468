import { open, readdir, readFile, realpath, rm, type FileHandle } from 'node:fs/promises'
import { dirname, join, resolve, sep } from 'node:path'
import { removeLeftovers, writeError, writeFileAtomic } from '../formats/atomic.ts'
import { removeFolderAtomic } from '../formats/atomic-folder.ts'
import { isShard } from '../formats/checkpoint.ts'
import { adapterNames, modelNames } from '../export/save.ts'
import { isJsonObject } from '../formats/json.ts'
import { cardName } from '../model/peft/card.ts'
import { LowrankError } from '../util/errors.ts'
import { listCheckpoints, settleCheckpoints, type Checkpoint } from './checkpoint.ts'
import type { TrainEvent } from '../train/events.ts'
import { cardsOf, type OutputFolder } from './output-folder.ts'
import { recordName, type RunRecord } from './record.ts'
import type { RunInputs } from './run-inputs.ts'

export interface RunFilesOptions {
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
  /** What the model completed before training, where the run goes on: told already, to be compared with what it completes after. */
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
      const why = inPlace ? `removed, since the run goes on from ${from.folder}` : 'removed of an earlier run'
      const removed = await removeCheckpoints(
        others.map((one) => one.folder),
        { why, reads },
      )
      removed.push(...(await removeOtherResult(folder, kindOf(inputs.config), output)))
      const metricsPath = join(folder, metricsName)
      const metrics = from === undefined ? '' : await metricsUpTo(from)
      await writeFileAtomic(metricsPath, metrics)
      const cards = cardsOf(output.earlier)
      const now = new Date().toISOString()
      const record: RunRecord = {
        config: inputs.config,
        versions: inputs.versions,
        hashes: inputs.hashes,
        data,
        startedAt: from?.record.startedAt ?? now,
        status: 'running',
        files: output.files,
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

  async update(changes: Partial<RunRecord>): Promise<void> {
    this.#record = { ...this.#record, ...changes }
    await writeFileAtomic(join(this.folder, recordName), `${JSON.stringify(this.#record, null, 2)}\n`)
  }

  async close(): Promise<void> {
    await this.#metrics.close()
  }
}

/** Removes checkpoints, or refuses where the run reads one of them. */
async function removeCheckpoints(
  folders: readonly string[],
  { why, reads }: { readonly why: string; readonly reads: readonly string[] },
): Promise<string[]> {
  const targets = await Promise.all(reads.map((path) => realpath(path).catch(() => resolve(path))))
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

type Kind = 'adapter' | 'model'

function kindOf(config: unknown): Kind | undefined {
  const method = isJsonObject(config) ? config['method'] : undefined
  return method === 'full' ? 'model' : method === 'lora' || method === 'qlora' ? 'adapter' : undefined
}

const metricsName = 'metrics.jsonl'

const isResult: Readonly<Record<Kind, (name: string) => boolean>> = {
  adapter: (name) => name === cardName || adapterNames.includes(name),
  model: (name) => name === 'generation_config.json' || modelNames.includes(name) || isShard(name),
}

/**
 * A folder with an adapter and a model would be loaded as the wrong one. Only what `run.json` says to come from an earlier run is
 * removed.
 */
async function removeOtherResult(folder: string, kind: Kind | undefined, output: OutputFolder): Promise<string[]> {
  const earlier = kindOf(output.earlier?.config)
  if (earlier === undefined || earlier === kind) return []
  const isOurs = (name: string): boolean => (name === cardName ? output.writesCard : output.isOurs(name))
  const names = (await readdir(folder)).filter((name) => isResult[earlier](name) && isOurs(name))
  for (const name of names) await rm(join(folder, name))
  return names.length === 0 ? [] : [`removed the ${earlier} of an earlier run: ${names.join(', ')} in ${folder}`]
}

/** The events that a run had told when it wrote a checkpoint: whole lines, as far as they are still there. */
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
