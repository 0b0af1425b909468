/*
 * The same training with products in f32 (`matmulPrecision` highest) and in slices of 8 bits (high): the losses at its end are within 2e-3 of each
 * other, and PEFT finds in f32, within 1e-3, the loss that the run at `high` reports.
 *
 *     npm run parity:precision -- --model DIR [--steps 200] [--load-in-8bit]
 *
 * Without Python (torch, transformers, peft) the second is left out.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { realShapedExamples, toJsonl } from '../../bench/data.ts'
import { findPython, modelFolder, runPython } from '../../bench/python.ts'
import { countFlag } from '../../bench/training-step.ts'
import { finetune } from '../../src/index.ts'

const args = process.argv.slice(2)
const model = modelFolder(args)
const steps = countFlag(args, '--steps', 200)
const loadIn8bit = args.includes('--load-in-8bit')
const work = await mkdtemp(join(tmpdir(), 'lowrank-precision-'))
const [train, valid] = [join(work, 'train.jsonl'), join(work, 'valid.jsonl')]

interface Losses {
  /** Of the last tenth of the steps. */
  readonly train: number
  readonly eval: number
  readonly seconds: number
}

async function run(matmulPrecision: 'highest' | 'high'): Promise<Losses> {
  const lastSteps: number[] = []
  let [found, seconds] = [NaN, 0]
  const events = finetune({
    model,
    train,
    valid,
    outputDir: join(work, matmulPrecision),
    method: loadIn8bit ? 'qlora' : 'lora',
    loadIn8bit,
    matmulPrecision,
    r: 32,
    loraAlpha: 64,
    learningRate: 2e-4,
    maxLength: 256,
    perDeviceTrainBatchSize: 2,
    maxSteps: steps,
    evalStrategy: 'steps',
    evalSteps: steps,
    saveStrategy: 'no',
    seed: 7,
  })
  for await (const event of events) {
    if (event.type === 'step' && event.step > 0.9 * steps) lastSteps.push(event.loss)
    if (event.type === 'eval') found = event.loss
    if (event.type === 'done') ({ seconds } = event)
  }
  const losses = { train: lastSteps.reduce((sum, loss) => sum + loss, 0) / lastSteps.length, eval: found, seconds }
  console.log(
    `${matmulPrecision}: training loss ${losses.train.toFixed(6)} at the end, evaluation ${found.toFixed(6)}, ${seconds.toFixed(0)} s`,
  )
  return losses
}

function check(what: string, difference: number, tolerance: number): void {
  const passed = Math.abs(difference) < tolerance
  console.log(`${passed ? 'ok  ' : 'FAIL'} ${what}: difference ${difference.toExponential(1)}, allowed ${tolerance}`)
  if (!passed) process.exitCode = 1
}

try {
  await writeFile(train, toJsonl(realShapedExamples({ count: 2 * steps, seed: 1 })))
  await writeFile(valid, toJsonl(realShapedExamples({ count: 20, seed: 2 })))
  const [highest, high] = [await run('highest'), await run('high')]
  check('training loss at the end', high.train - highest.train, 2e-3)
  check('evaluation loss at the end', high.eval - highest.eval, 2e-3)
  // PEFT would quantize to 8 bits in another way.
  const python = loadIn8bit ? undefined : await findPython()
  if (python !== undefined) {
    const script = fileURLToPath(new URL('../../../test/parity/peft_eval.py', import.meta.url))
    const flags = ['--model', model, '--adapter', join(work, 'high'), '--data', valid, '--max-length', '256']
    const theirs = await runPython<{ loss: number }>(python, script, flags)
    check(`evaluation in PEFT (${theirs.loss.toFixed(6)})`, high.eval - theirs.loss, 1e-3)
  }
} finally {
  await rm(work, { recursive: true })
}
