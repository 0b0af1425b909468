import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { resumeRule, type TrainConfig } from '../config/index.ts'
import { defaultThreads } from '../engine/machine.ts'
import { writeError } from '../formats/atomic.ts'
import { takeLock } from '../formats/lock.ts'
import { type Job, newJob, readJobs } from '../jobs/job.ts'
import { runJobs } from '../jobs/pool.ts'
import { lockName } from '../runs/output-folder.ts'
import { LowrankError } from '../util/errors.ts'
import { brief } from '../util/format.ts'
import type { StatusEvent } from '../util/task.ts'

interface ExperimentOptions {
  /** Receives jobs and runs. */
  readonly folder: string
  /** The file that a process of a job runs. */
  readonly entry: URL
  readonly workers: number
  readonly cancelled: () => boolean
}

/** A training that an experiment needs. */
export interface Wanted {
  readonly id: string
  readonly config: TrainConfig
  /** The run whose folder it goes on in; its own by default. */
  readonly run?: string
  readonly until?: number | undefined
}

/** Trainings that are kept in a folder: what is done there is not done again. */
export class Experiment {
  readonly #options: ExperimentOptions
  readonly #release: () => Promise<void>

  private constructor(options: ExperimentOptions, release: () => Promise<void>) {
    this.#options = options
    this.#release = release
  }

  /** @throws LowrankError `config`: another process works in the folder; `io`. */
  static async open(options: ExperimentOptions): Promise<Experiment> {
    const { folder } = options
    await mkdir(join(folder, 'runs'), { recursive: true }).catch((error: Error) => {
      throw writeError(folder, error)
    })
    return new Experiment(
      options,
      await takeLock(join(folder, lockName), `outputDir: another process works in ${folder}`),
    )
  }

  /** Output folder of a run. */
  runFolder(run: string): string {
    return join(this.#options.folder, 'runs', run)
  }

  /** Whether a job is done. */
  async isDone(id: string): Promise<boolean> {
    return (await readJobs(this.#jobs)).get(id)?.state.status === 'done'
  }

  /**
   * Trains what is not trained yet; the jobs with their results, in the same order.
   *
   * @throws LowrankError `config`: the folder has one of these trainings with other options.
   */
  train(wanted: readonly Wanted[]): AsyncGenerator<StatusEvent, Job[]> {
    return this.#run(
      wanted.map((one) => newJob({ kind: 'train', id: one.id, config: this.#configOf(one), until: one.until })),
    )
  }

  /** Measures what was trained: see `runMeasure`. */
  measure(wanted: readonly Wanted[]): AsyncGenerator<StatusEvent, Job[]> {
    return this.#run(
      wanted.map((one) => newJob({ kind: 'measure', id: `${one.id}.measure`, config: this.#configOf(one) })),
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#release()
  }

  get #jobs(): string {
    return join(this.#options.folder, 'jobs')
  }

  /** Of the processes that run at once, each has its share of threads and of the bound on memory. */
  #configOf({ id, run = id, config }: Wanted): TrainConfig {
    const { workers } = this.#options
    const { threads = defaultThreads(), memory } = config
    return {
      ...config,
      outputDir: this.runFolder(run),
      threads: Math.max(1, Math.floor(threads / workers)),
      ...(memory === undefined ? {} : { memory: Math.floor(memory / workers) }),
    }
  }

  async *#run(jobs: readonly Job[]): AsyncGenerator<StatusEvent, Job[]> {
    const known = await readJobs(this.#jobs)
    for (const job of jobs) refuseOther(this.#options.folder, job, known.get(job.id))
    return yield* runJobs(jobs, { ...this.#options, folder: this.#jobs })
  }
}

/** Options that may change by themselves when a run goes on, but name another experiment where they do. */
const content = ['model', 'train', 'valid', 'adapter', 'chatTemplate']

function refuseOther(folder: string, job: Job, known: Job | undefined): void {
  if (known === undefined) return
  const [a, b] = [known.config, job.config] as unknown as Readonly<Record<string, unknown>>[]
  const keys = [...new Set([...Object.keys(a!), ...Object.keys(b!)])]
  const changed = keys.filter(
    (key) =>
      (resumeRule(key) !== 'free' || content.includes(key)) && JSON.stringify(a![key]) !== JSON.stringify(b![key]),
  )
  if (changed.length === 0) return
  const list = changed.map((key) => `${key}: ${brief(a![key])} -> ${brief(b![key])}`).join(', ')
  throw new LowrankError('config', `${folder} has ${job.id} with other options (${list})`, {
    hint: `Choose another outputDir, or remove ${folder}.`,
  })
}
