import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { trainSchema } from '../config/index.ts'
import { writeError, writeFileAtomic } from '../formats/atomic.ts'
import { LowrankError } from '../util/errors.ts'

/*
 * A job is a JSON file that says all that is needed to run it, and later all that came of it: so a queue can hand it to any machine that
 * sees the same paths, and whoever draws a table reads these files alone. Whoever runs a job writes its state.
 */

const format = 1

/** What a training came to; losses in nats a label token, memory and sizes in bytes. */
const trainResultSchema = z.object({
  steps: z.int().min(0),
  /** Of the weights that were kept: at the last step, the best one with `loadBestModelAtEnd`, or that of `until`. */
  evalLoss: z.number(),
  tokenAccuracy: z.number(),
  /** Of tasks, by their names. */
  metrics: z.record(z.string(), z.number()),
  trainLoss: z.number().optional(),
  seconds: z.number(),
  tokensPerSecond: z.number().optional(),
  /** Of the process of its own that trained. */
  peakMemory: z.number(),
  /** Of the weights that were written: 0 where a training was paused. */
  artifactBytes: z.number(),
  /** Losses far outside their range. */
  lossSpikes: z.int().min(0),
  /** SHA-256 of the data. */
  hashes: z.record(z.string(), z.string()),
})

/** What was measured of what a training has written, loaded again in a process of its own. */
const measureResultSchema = z.object({
  /** Highest resident set while it answered a prompt. */
  servedMemory: z.number(),
  /** Loss summed over the label tokens of each validation example, and their number; the same examples in the same order for all. */
  exampleLosses: z.array(z.tuple([z.number(), z.int().min(0)])),
})

const processSchema = { pid: z.int(), host: z.string(), startedAt: z.string(), heartbeat: z.string() }

const stateSchema = z.discriminatedUnion('status', [
  z.object({ status: z.literal('pending') }),
  z.object({ status: z.literal('running'), ...processSchema }),
  z.object({ status: z.literal('done'), endedAt: z.string() }),
  z.object({
    status: z.literal('failed'),
    error: z.object({ code: z.string(), message: z.string(), hint: z.string().optional() }),
  }),
])

const common = {
  version: z.literal(format),
  id: z.string().regex(/^[a-z0-9][a-z0-9._-]{0,120}$/),
  state: stateSchema,
  /** A complete configuration of a training run. */
  config: trainSchema,
}

const jobSchema = z.discriminatedUnion('kind', [
  z.object({
    ...common,
    kind: z.literal('train'),
    /** The step after which it is paused, with a checkpoint from which a job of the same output folder goes on exactly. */
    until: z.int().min(1).optional(),
    result: trainResultSchema.optional(),
  }),
  // Of what the training of the same configuration has left in its output folder.
  z.object({ ...common, kind: z.literal('measure'), result: measureResultSchema.optional() }),
])

export type Job = z.output<typeof jobSchema>
export type JobState = Job['state']
export type JobOf<K extends Job['kind']> = Extract<Job, { kind: K }>
export type TrainResult = z.output<typeof trainResultSchema>
export type MeasureResult = z.output<typeof measureResultSchema>

/** A job that waits to be run. */
export function newJob<K extends Job['kind']>(
  job: Pick<JobOf<K>, 'id' | 'config'> & { readonly kind: K; readonly until?: number | undefined },
): JobOf<K> {
  return { version: format, state: { status: 'pending' }, ...job } as unknown as JobOf<K>
}

export function jobPath(folder: string, id: string): string {
  return join(folder, `${id}.json`)
}

/** Writes a job to its file, whole or not at all. */
export async function writeJob(path: string, job: Job): Promise<void> {
  await writeFileAtomic(path, `${JSON.stringify(job, null, 2)}\n`)
}

/** @throws LowrankError `data`: it is no job, or one of another version. */
export async function readJob(path: string): Promise<Job> {
  let value: unknown
  try {
    value = JSON.parse(await readFile(path, 'utf8'))
  } catch (cause) {
    throw refused(path, (cause as Error).message, cause)
  }
  const parsed = jobSchema.safeParse(value)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw refused(path, `${issue?.path.join('.')}: ${issue?.message}`)
}

function refused(path: string, problem: string, cause?: unknown): LowrankError {
  return new LowrankError('data', `${path}: not a job of this version: ${problem}`, {
    hint: 'Choose another outputDir, or remove the folder of the comparison.',
    cause,
  })
}

/** The jobs of a folder, by id; none where there is no folder yet. */
export async function readJobs(folder: string): Promise<Map<string, Job>> {
  await mkdir(folder, { recursive: true }).catch((error: Error) => {
    throw writeError(folder, error)
  })
  const names = (await readdir(folder)).filter((name) => name.endsWith('.json') && !name.startsWith('.')).sort()
  const jobs = await Promise.all(names.map((name) => readJob(join(folder, name))))
  return new Map(jobs.map((job) => [job.id, job]))
}
