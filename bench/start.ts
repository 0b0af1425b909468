/*
 * How long a run takes until it computes: Node.js, the model and its tokenizer, data, plan, weights, programs. It takes its first step then, where memory
 * may fall short after it has tried the largest micro-batch. The SHA-256 of the model is computed beside the steps.
 *
 *     npm run bench:start -- --model DIR [--train FILE] [--rounds 3] [-- more flags of train]
 */
import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { TrainEvent } from '../src/index.ts'
import { modelFolder } from './python.ts'
import { countFlag, flagValue, median } from './training-step.ts'

const given = process.argv.slice(2)
const end = given.includes('--') ? given.indexOf('--') : given.length
const [args, more] = [given.slice(0, end), given.slice(end + 1)]
const model = modelFolder(args)
const here = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))
const train = flagValue(args, '--train') ?? here('examples/quickstart/train.jsonl')

/** Seconds from the start of the process. */
interface Started {
  /** Until something is computed. */
  readonly computes: number
  /** Until the loss of the first step is known. */
  readonly done: number
}

async function first(outputDir: string): Promise<Started> {
  const flags = ['--model', model, '--train', train, '--output-dir', outputDir, '--overwrite-output-dir']
  const begun = performance.now()
  let computes: number | undefined
  const child = spawn(
    process.execPath,
    [here('dist/cli.js'), 'train', '--json', ...flags, '--max-steps', '1000', ...more],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      const event = JSON.parse(line) as TrainEvent
      const now = (performance.now() - begun) / 1000
      if (event.type === 'status' && event.message.startsWith('trying the largest')) computes = now
      if (event.type === 'step') return { computes: computes ?? now - event.seconds, done: now }
    }
    throw new Error('the run ended before its first step')
  } finally {
    child.kill('SIGKILL')
  }
}

const work = await mkdtemp(join(tmpdir(), 'lowrank-start-'))
try {
  const found: Started[] = []
  for (let round = 0; round < countFlag(args, '--rounds', 3); round++) found.push(await first(join(work, 'out')))
  const [computes, done] = [median(found.map((one) => one.computes)), median(found.map((one) => one.done))]
  console.log(
    `computes after ${computes.toFixed(2)} s; the first step is done after ${done.toFixed(2)} s (medians of ${found.length})`,
  )
} finally {
  await rm(work, { recursive: true, force: true })
}
