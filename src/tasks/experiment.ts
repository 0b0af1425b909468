import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { resumeRule, type TrainConfig } from '../config/index.ts'
import { availableMemory, defaultThreads } from '../engine/machine.ts'
import { writeError } from '../formats/atomic.ts'
import { takeLock } from '../formats/lock.ts'
import { type Job, newJob, readJobs } from '../jobs/job.ts'
import { runJobs } from '../jobs/pool.ts'
import { lockName } from '../runs/output-folder.ts'
import { shareOfFree } from '../session/plan.ts'
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
  /** What a process may take where no bound is given, bytes: several at once would each plan with all that is free. */
  readonly #share: number | undefined
  readonly #release: () => Promise<void>

  private constructor(options: ExperimentOptions, release: () => Promise<void>) {
    this.#options = options
    const { workers } = options
    this.#share = workers > 1 ? Math.floor((shareOfFree * availableMemory()) / workers) : undefined
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

  /** The configurations that the processes get: each has its share of threads and of memory. */
  async configsOf(wanted: readonly Wanted[]): Promise<TrainConfig[]> {
    const known = [...(await readJobs(this.#jobs)).values()]
    return wanted.map((one) => this.#configOf(one, known))
  }

  /**
   * Trains what is not trained yet; the jobs with their results, in the same order.
   *
   * @throws LowrankError `config`: the folder has one of these trainings with other options.
   */
  async *train(wanted: readonly Wanted[]): AsyncGenerator<StatusEvent, Job[]> {
    const configs = await this.configsOf(wanted)
    return yield* this.#run(wanted.map(({ id, until }, i) => newJob({ kind: 'train', id, config: configs[i]!, until })))
  }

  /** Measures what was trained: see `runMeasure`. */
  async *measure(wanted: readonly Wanted[]): AsyncGenerator<StatusEvent, Job[]> {
    const configs = await this.configsOf(wanted)
    return yield* this.#run(
      wanted.map(({ id }, i) => newJob({ kind: 'measure', id: `${id}.measure`, config: configs[i]! })),
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#release()
  }

  get #jobs(): string {
    return join(this.#options.folder, 'jobs')
  }

  #configOf({ id, run = id, config }: Wanted, known: readonly Job[]): TrainConfig {
    const { workers } = this.#options
    const { threads = defaultThreads(), memory, ...rest } = config
    const outputDir = this.runFolder(run)
    const begun = known.find((job) => job.config.outputDir === outputDir)
    // What was begun was planned within its own bound: another call, with less memory free, could not go on with that plan.
    const own = begun === undefined ? this.#share : begun.config.memory
    const bound = memory === undefined ? own : Math.floor(memory / workers)
    return {
      ...rest,
      outputDir,
      threads: Math.max(1, Math.floor(threads / workers)),
      ...(bound === undefined ? {} : { memory: bound }),
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
