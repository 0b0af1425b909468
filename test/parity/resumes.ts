/*
 * Random runs that are aborted six times each, at random moments, and resumed: the result has the bytes of a run that never was.
 *
 *     npm run parity:resumes -- [--count 20] [--seed 1] [--only SEED]
 *
 * Run i has the seed `seed + i`, which decides its options and the moments. Needs no Python.
 */
import { createHash } from 'node:crypto'
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { finetune, type TrainConfigInput, type TrainEvent } from '../../src/index.ts'
import { LowrankError } from '../../src/util/errors.ts'
import { Draws } from '../draws.ts'

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
  },
})
const aborts = 6
const quickstart = fileURLToPath(new URL('../../../examples/quickstart', import.meta.url))
const work = await mkdtemp(join(tmpdir(), 'lowrank-resumes-'))

/** The options of a run: method, optimizer, what is random in it, evaluations, checkpoints. */
function randomRun(draws: Draws): Omit<TrainConfigInput, 'outputDir'> {
  const method = draws.pick(['lora', 'qlora', 'full'] as const)
  const evaluates = draws.chance(0.6)
  return {
    model: join(work, 'model'),
    train: join(work, 'train.jsonl'),
    ...(evaluates ? { valid: join(work, 'valid.jsonl'), evalSteps: draws.between(2, 7) } : {}),
    ...(evaluates && draws.chance(0.5) ? { loadBestModelAtEnd: true } : {}),
    method,
    ...(method === 'full'
      ? { saveDtype: draws.pick(['auto', 'bf16'] as const) }
      : { loraDropout: draws.pick([0, 0.1]) }),
    ...(draws.chance(0.3) ? { neftuneNoiseAlpha: 5 } : {}),
    optim: draws.pick(['adamw', 'adamw-8bit', 'sgd'] as const),
    packing: draws.chance(0.3),
    seed: draws.between(0, 1000),
    learningRate: 1e-3,
    maxLength: draws.between(48, 96),
    maxSteps: draws.between(24, 40),
    perDeviceTrainBatchSize: draws.between(1, 4),
    gradientAccumulationSteps: draws.between(1, 3),
    saveSteps: draws.between(2, 9),
    saveTotalLimit: draws.between(1, 3),
    loggingSteps: draws.between(1, 5),
    activations: draws.pick(['keep', 'recompute'] as const),
    threads: 2,
  }
}

interface Outcome {
  readonly steps: readonly string[]
  readonly cancelled: boolean
}

/** Runs until the end, or until a moment after the step of this number: at once, or in the middle of what follows it. */
async function run(
  config: TrainConfigInput,
  abort?: { readonly step: number; readonly delay: number },
): Promise<Outcome> {
  const controller = new AbortController()
  const steps: string[] = []
  const note = (event: TrainEvent): void => {
    if (event.type === 'step') steps.push(`${event.step} ${event.loss} ${event.gradNorm}`)
    if (event.type === 'eval') steps.push(`${event.step} eval ${event.loss}`)
  }
  try {
    for await (const event of finetune(config, { signal: controller.signal })) {
      note(event)
      if (abort === undefined || event.type !== 'step' || event.step < abort.step) continue
      setTimeout(() => controller.abort(), abort.delay)
    }
    return { steps, cancelled: false }
  } catch (error) {
    if (error instanceof LowrankError && error.code === 'cancelled') return { steps, cancelled: true }
    throw error
  }
}

async function resultOf(folder: string): Promise<string> {
  const names = ['adapter_model.safetensors', 'model.safetensors']
  const found = await Promise.all(names.map((name) => readFile(join(folder, name)).catch(() => undefined)))
  return createHash('sha256')
    .update(found.find((bytes) => bytes !== undefined) ?? '')
    .digest('hex')
}

/** Whether the two agree, and how often the second was aborted. */
async function compare(seed: number): Promise<{ readonly same: boolean; readonly aborted: number }> {
  const draws = new Draws(seed, 'resumes')
  const config = randomRun(draws)
  const [never, often] = [join(work, `never-${seed}`), join(work, `often-${seed}`)]
  const whole = await run({ ...config, outputDir: never })
  const reported = new Map<string, string>()
  const keep = ({ steps }: Outcome): void => steps.forEach((line) => reported.set(line.replace(/ [^ ]+$/, ''), line))
  const moments = Array.from({ length: aborts }, () => draws.between(1, config.maxSteps ?? 1)).sort((a, b) => a - b)
  let aborted = 0
  for (const step of moments) {
    const outcome = await run({ ...config, outputDir: often, resume: true }, { step, delay: draws.between(0, 60) })
    if (outcome.cancelled) aborted++
    keep(outcome)
  }
  keep(await run({ ...config, outputDir: often, resume: true }))
  const steps = new Set(reported.values())
  const same = (await resultOf(never)) === (await resultOf(often)) && whole.steps.every((line) => steps.has(line))
  await Promise.all([never, often].map((folder) => rm(folder, { recursive: true })))
  return { same, aborted }
}

await cp(join(quickstart, 'model'), join(work, 'model'), { recursive: true })
for (const [name, lines] of [
  ['train.jsonl', 24],
  ['valid.jsonl', 4],
] as const) {
  const text = await readFile(join(quickstart, name), 'utf8')
  await writeFile(join(work, name), `${text.split('\n').slice(0, lines).join('\n')}\n`)
}
const first = Number(values.only ?? values.seed)
const seeds = Array.from({ length: values.only === undefined ? Number(values.count) : 1 }, (_, i) => first + i)
let [different, total] = [0, 0]
for (const seed of seeds) {
  const { same, aborted } = await compare(seed)
  total += aborted
  if (same) continue
  different++
  console.log(`seed ${seed}: other bytes or other losses`)
}
await rm(work, { recursive: true, force: true })
console.log(`${seeds.length} runs, aborted ${total} times: ${different} that end with other bytes`)
process.exitCode = different === 0 ? 0 : 1
