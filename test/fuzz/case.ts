import { cp, lstat, mkdir, readdir, readFile, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Draws } from '../draws.ts'
import { LowrankError } from '../../src/util/errors.ts'
import { calls, type Call, type Tasks } from './calls.ts'
import { mutate } from './mutate.ts'
import { damageSeen, isFinite, type Verdict } from './verdict.ts'

export interface Outcome {
  readonly seed: number
  readonly verdict: Verdict
  readonly call: string
  /** The damaged file, and how it was damaged. */
  readonly file: string
  readonly how: string
  /** What came out: an error, or in which way the result is wrong. */
  readonly found: string
  readonly seconds: number
}

export interface CaseOptions {
  readonly seed: number
  /** Folder of the seeds, and one that the case may use. */
  readonly seeds: string
  readonly work: string
  readonly tasks: Tasks
  /** Results of undamaged files, by call: filled as they are needed. */
  readonly baselines: Map<string, string>
  /** Hears what will be done before it is. */
  readonly onStart?: (plan: Pick<Outcome, 'call' | 'file' | 'how'>) => void
}

/** Damages a file and makes a call that reads it. Which, and how, is decided by the seed. */
export async function runCase({ seed, seeds, work, tasks, baselines, onStart }: CaseOptions): Promise<Outcome> {
  const draws = new Draws(seed, 'fuzz')
  const call = draws.pick(calls)
  let baseline = baselines.get(call.name)
  if (baseline === undefined) {
    baseline = JSON.stringify(await resultOf(call, { seeds, work, tasks }))
    baselines.set(call.name, baseline)
  }
  await copySeeds(call, { seeds, work })
  const file = draws.pick(await filesBelow(work, draws.pick(call.damaged)))
  const how = await mutate(join(work, file), draws)
  const plan = { call: call.name, file, how }
  onStart?.(plan)
  const begun = performance.now()
  const [verdict, found] = await judge(call, { seeds, work, tasks }, { file, baseline })
  const seconds = (performance.now() - begun) / 1000
  await rm(work, { recursive: true, force: true })
  return { seed, verdict, ...plan, found, seconds }
}

type Place = Pick<CaseOptions, 'seeds' | 'work' | 'tasks'>

async function judge(
  call: Call,
  { seeds, work, tasks }: Place,
  { file, baseline }: { readonly file: string; readonly baseline: string },
): Promise<[Verdict, string]> {
  let result: unknown
  const [before, after] = [await readFile(join(seeds, file)), await readPlain(join(work, file))]
  try {
    result = await call.run(tasks, work)
  } catch (error) {
    const known = error instanceof LowrankError && error.code !== 'internal' && !error.message.includes('internal:')
    if (known) return ['refused', `${error.code}: ${error.message}`]
    return ['internal', error instanceof Error ? (error.stack ?? error.message) : String(error)]
  }
  const text = textOf(result, work)
  if (text.includes('internal:')) return ['internal', text]
  if (call.name !== 'reports' && !isFinite(result)) return ['wrong', `not finite: ${text.slice(0, 300)}`]
  if (text.includes('"injected":true')) return ['wrong', 'markup of a file is in the page']
  if (text === baseline) return ['same', '']
  // A replay says itself that what it computes is not what the run reported.
  if (call.name === 'replay' && !text.includes('"equal":true')) return ['changed', '']
  const seen = call.name === 'replay' ? 'the loss is another, and said to be equal' : damageSeen(file, before, after)
  if (call.name === 'replay' && sameLoss(text, baseline)) return ['changed', '']
  return seen === undefined ? ['changed', ''] : ['wrong', `${seen}, but the result is another: ${text.slice(0, 300)}`]
}

function sameLoss(one: string, other: string): boolean {
  const loss = (text: string): unknown => (JSON.parse(text) as { loss: unknown }).loss
  return loss(one) === loss(other)
}

async function resultOf(call: Call, place: Place): Promise<unknown> {
  await copySeeds(call, place)
  const result = await call.run(place.tasks, place.work)
  await rm(place.work, { recursive: true })
  return JSON.parse(textOf(result, place.work)) as unknown
}

/** A result as text, without what depends on place and time. */
function textOf(result: unknown, work: string): string {
  return JSON.stringify(result ?? null, (key, value: unknown) => (key === 'lastSign' ? undefined : value)).replaceAll(
    work,
    '~',
  )
}

async function copySeeds(call: Call, { seeds, work }: Pick<Place, 'seeds' | 'work'>): Promise<void> {
  await rm(work, { recursive: true, force: true })
  for (const name of call.uses) {
    await mkdir(dirname(join(work, name)), { recursive: true })
    await cp(join(seeds, name), join(work, name), { recursive: true })
  }
}

/** The path itself, or those of all files below it, sorted; from `root` on. */
async function filesBelow(root: string, path: string): Promise<string[]> {
  if (!(await stat(join(root, path))).isDirectory()) return [path]
  const entries = await readdir(join(root, path), { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1))
    .sort()
}

async function readPlain(path: string): Promise<Buffer | undefined> {
  const found = await lstat(path).catch(() => undefined)
  return found?.isFile() === true ? await readFile(path) : undefined
}
