import { type ChildProcess, fork } from 'node:child_process'
import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { LowrankError } from '../util/errors.ts'
import { status, type StatusEvent } from '../util/task.ts'
import { type Job, jobPath, readJob, writeJob } from './job.ts'

/** What a process says of its job. */
export interface Progress {
  readonly text: string
}

interface PoolOptions {
  /** Folder of the files of the jobs. */
  readonly folder: string
  /** The file that a process runs, with the path of its job as argument. */
  readonly entry: URL
  /** Processes at once. */
  readonly workers: number
  readonly cancelled: () => boolean
}

/** Milliseconds between two looks at whether a process has ended, or all are to end. */
const tick = 50
/** Times that a job is started again whose process was ended from outside, as by the system when memory is short. */
const restarts = 2
/** Milliseconds for which the process of a killed call is waited for: it ends by itself once it has saved a checkpoint. */
const orphanPatience = 60_000
/** Milliseconds in which a process that was asked to end may save what it has. */
const patience = 30_000

/**
 * Runs jobs, each in a process of its own, in their order; those that are done already are left as they are. What failed is in the files of
 * the jobs, and keeps no other from running. No process is left behind: one whose caller is gone ends by itself.
 *
 * @throws LowrankError `cancelled`: those that were under way wait again.
 */
export async function* runJobs(jobs: readonly Job[], options: PoolOptions): AsyncGenerator<StatusEvent, Job[]> {
  const { folder, workers, cancelled } = options
  const waiting: Job[] = []
  for (const job of jobs) {
    const path = jobPath(folder, job.id)
    const known = await readJob(path).catch(() => undefined)
    if (known?.state.status === 'done') continue
    if (known !== undefined) yield* waitForOrphan(known, cancelled)
    await writeJob(path, job)
    waiting.push(job)
  }
  const total = waiting.length
  const messages: string[] = []
  const running = new Set<JobProcess>()
  let started = 0
  try {
    while (waiting.length > 0 || running.size > 0) {
      if (cancelled())
        throw new LowrankError('cancelled', `cancelled: ${waiting.length + running.size} of ${total} jobs are left`, {
          hint: 'The same call goes on with them.',
        })
      for (const one of running) {
        if (!one.ended) continue
        running.delete(one)
        yield* settled(one, options, running)
      }
      while (running.size < workers && waiting.length > 0) {
        const job = waiting.shift()!
        yield status(`${job.id}: ${job.kind}, ${++started} of ${total}`)
        running.add(new JobProcess(job, options.entry, jobPath(folder, job.id), messages))
      }
      for (const message of messages.splice(0)) yield status(message)
      await sleep(tick)
    }
  } finally {
    await Promise.all([...running].map((one) => one.end()))
  }
  return Promise.all(jobs.map(({ id }) => readJob(jobPath(folder, id))))
}

/** What became of a job whose process has ended: it is started again where the process could not say. */
async function* settled(
  one: JobProcess,
  { folder, entry }: PoolOptions,
  running: Set<JobProcess>,
): AsyncGenerator<StatusEvent> {
  const { job, how } = one
  const path = jobPath(folder, job.id)
  const { state } = await readJob(path)
  if (state.status === 'done') return
  if (state.status === 'failed') {
    yield status(`${job.id}: failed: ${state.error.message}`)
    return
  }
  if (one.starts <= restarts) {
    yield status(`${job.id}: its process ended (${how}); started again`)
    running.add(new JobProcess(job, entry, path, one.messages, one.starts + 1))
    return
  }
  const message = `its process ended ${one.starts} times (${how})`
  const hint = 'The system ends processes where memory is short: see "memory".'
  await writeJob(path, { ...job, state: { status: 'failed', error: { code: 'internal', message, hint } } })
  yield status(`${job.id}: failed: ${message}`)
}

async function* waitForOrphan({ id, state }: Job, cancelled: () => boolean): AsyncGenerator<StatusEvent> {
  if (state.status !== 'running' || state.host !== hostname() || !isAlive(state.pid)) return
  yield status(`${id}: waiting for the process ${state.pid} of an earlier call`)
  const latest = performance.now() + orphanPatience
  // A number of a process that is used again looks the same, so the wait has an end; the lock of the run's folder decides.
  while (isAlive(state.pid) && performance.now() < latest && !cancelled()) await sleep(tick)
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** The process of a job. */
class JobProcess {
  readonly job: Job
  readonly messages: string[]
  /** How often the job was started, this time included. */
  readonly starts: number
  readonly #child: ChildProcess
  readonly #closed: Promise<void>
  #stderr = ''
  #how: string | undefined

  constructor(job: Job, entry: URL, path: string, messages: string[], starts = 1) {
    this.job = job
    this.messages = messages
    this.starts = starts
    this.#child = fork(fileURLToPath(entry), [path], { execArgv: [], stdio: ['ignore', 'ignore', 'pipe', 'ipc'] })
    this.#child.on('message', ({ text }: Progress) => void messages.push(`${job.id}: ${text}`))
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-2000)
    })
    this.#closed = new Promise((resolve) => {
      const close = (how: string): void => {
        this.#how ??= how
        resolve()
      }
      this.#child.on('error', (error) => close(error.message))
      this.#child.on('close', (code, signal) => {
        const said = this.#stderr.trim()
        close(signal ?? `exit code ${code}${said === '' ? '' : `: ${said}`}`)
      })
    })
  }

  get ended(): boolean {
    return this.#how !== undefined
  }

  /** How it ended. */
  get how(): string {
    return this.#how ?? ''
  }

  /** Asks it to end, and waits until it has. */
  async end(): Promise<void> {
    if (this.ended) return
    // Not `disconnect`, after which no `close` comes.
    if (this.#child.connected) this.#child.send('end')
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), patience)
    await this.#closed
    clearTimeout(timer)
  }
}
