import { readdir, stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { latestCheckpoint } from '../runs/checkpoint.ts'
import { type Run, readRun } from '../runs/read.ts'
import type { TrainEvent } from '../train/events.ts'
import { internalError, LowrankError, messageOf } from '../util/errors.ts'
import { type Job, type JobOf, type JobState, type MeasureResult, readJob, type TrainResult, writeJob } from './job.ts'

/** Runs a task by its name: see `compute.ts` of the commands. */
type Compute = <Event, Result>(
  task: string,
  config: unknown,
  options: { readonly signal: AbortSignal },
) => AsyncGenerator<Event, Result>

interface RunJobOptions {
  readonly compute: Compute
  /** Asks it to end early. */
  readonly signal: AbortSignal
  /** Receives how far it is, in words. */
  readonly onProgress: (text: string) => void
}

/** Seconds between two signs of life in the file of a job. */
const heartbeat = 10

/**
 * Runs the job of a file, in this process, and writes its state there: running, then done or failed. One that is asked to end early waits
 * again, and goes on from its checkpoint when it is run the next time.
 */
export async function runJob(path: string, options: RunJobOptions): Promise<void> {
  const job = await readJob(path)
  const startedAt = new Date().toISOString()
  const write = (state: JobState, result?: Job['result']): Promise<void> =>
    writeJob(path, { ...job, state, result } as Job)
  const running = (): JobState => ({
    status: 'running',
    pid: process.pid,
    host: hostname(),
    startedAt,
    heartbeat: new Date().toISOString(),
  })
  await write(running())
  let writing = Promise.resolve()
  const beat = setInterval(() => {
    writing = writing.then(() => write(running())).catch(() => {})
  }, 1000 * heartbeat)
  const end = async (state: JobState, result?: Job['result']): Promise<void> => {
    clearInterval(beat)
    await writing
    await write(state, result)
  }
  try {
    const result = job.kind === 'train' ? await runTraining(job, options) : await runMeasurement(job, options)
    await end({ status: 'done', endedAt: new Date().toISOString() }, result)
  } catch (error) {
    if (options.signal.aborted) return end({ status: 'pending' })
    const { code = 'internal', hint } = error instanceof LowrankError ? error : {}
    const described = { code, message: messageOf(error), ...(hint === undefined ? {} : { hint }) }
    await end({ status: 'failed', error: described })
  }
}

async function runMeasurement(
  { config }: JobOf<'measure'>,
  { compute, signal }: RunJobOptions,
): Promise<MeasureResult> {
  const events = compute<unknown, MeasureResult>('job measure', config, { signal })
  for (;;) {
    const { done, value } = await events.next()
    if (done === true) return value
  }
}

async function runTraining(
  { config, until }: JobOf<'train'>,
  { compute, signal, onProgress }: RunJobOptions,
): Promise<TrainResult> {
  const { outputDir } = config
  if (until !== undefined && (await isReached(outputDir, until))) return resultOfRun(outputDir, until)
  const pause = new AbortController()
  const events = compute<TrainEvent, void>(
    'train',
    { ...config, resume: true },
    { signal: AbortSignal.any([signal, pause.signal]) },
  )
  try {
    for await (const event of events) {
      if (event.type === 'eval') onProgress(`step ${event.step}: evaluation loss ${event.loss.toFixed(4)}`)
      if (event.type === 'resume') onProgress(`resumed after step ${event.step}`)
      if (event.type === 'save' && event.step >= (until ?? Infinity)) pause.abort()
    }
  } catch (error) {
    if (signal.aborted || !pause.signal.aborted) throw error
  }
  return resultOfRun(outputDir, until)
}

/** Whether a run has evaluated at a step, and has a checkpoint of that or a later one: a pause that was not noted before a kill. */
async function isReached(folder: string, until: number): Promise<boolean> {
  const run = await readRun(folder).catch(() => undefined)
  if (run?.evals.some(({ step }) => step === until) !== true) return false
  const found = await latestCheckpoint(folder).catch(() => undefined)
  return run.status === 'done' || (found?.checkpoint.record.state.step ?? 0) >= until
}

/** What the files of a run say of it. */
async function resultOfRun(folder: string, until: number | undefined): Promise<TrainResult> {
  const run = await readRun(folder)
  const { figures } = run
  // A run that was stopped early has none at a later step.
  const chosen = evaluationOf(run, until) ?? run.evals.at(-1)
  if (chosen === undefined) throw internalError(`no evaluation in ${folder}`)
  const { seconds = 0, peakMemory = 0, tokensPerSecond, trainLoss, steps } = figures
  const names = until === undefined ? await readdir(folder) : []
  const weights = names.filter((name) => name.endsWith('.safetensors'))
  const sizes = await Promise.all(weights.map(async (name) => (await stat(join(folder, name))).size))
  return {
    steps,
    evalLoss: chosen.loss,
    tokenAccuracy: chosen.tokenAccuracy,
    metrics: metricsOf(chosen),
    ...(trainLoss === undefined ? {} : { trainLoss }),
    ...(tokensPerSecond === undefined ? {} : { tokensPerSecond }),
    seconds,
    peakMemory,
    artifactBytes: sizes.reduce((sum, size) => sum + size, 0),
    lossSpikes: run.notices.filter(({ kind, text }) => kind === 'spike' && text.startsWith('loss')).length,
    hashes: Object.fromEntries(Object.entries(run.hashes).filter(([name]) => /^(?:train|valid)/.test(name))),
  }
}

/** The evaluation of the weights that a run has kept, or of a step. */
export function evaluationOf(
  { evals, config, figures }: Pick<Run, 'evals' | 'config' | 'figures'>,
  until?: number,
): Run['evals'][number] | undefined {
  const step = until ?? (config['loadBestModelAtEnd'] === true ? figures.best?.step : undefined)
  return step === undefined ? evals.at(-1) : evals.findLast((one) => one.step === step)
}

/** Figures of tasks, where evaluations have them. */
function metricsOf(evaluation: object): Record<string, number> {
  const metrics: unknown = 'metrics' in evaluation ? evaluation.metrics : undefined
  const entries = typeof metrics === 'object' && metrics !== null ? Object.entries(metrics) : []
  return Object.fromEntries(entries.filter((entry): entry is [string, number] => Number.isFinite(entry[1])))
}
