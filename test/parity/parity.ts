/*
 * The same training here and in PEFT: same base, same initial A and B, same batches, no dropout. Compares the loss curves, then lets
 * PEFT load the adapter saved here and compares the evaluation.
 *
 *     npm run parity -- --model DIR [--steps 20]
 *
 * Without Python (torch, transformers, peft) it says so and passes.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { realShapedExamples, toJsonl } from '../../bench/data.ts'
import { findPython, modelFolder, runPython } from '../../bench/python.ts'
import { parseTrainConfig } from '../../src/config/index.ts'
import { openSession } from '../../src/session/session.ts'
import { evalBatches, stepBatches } from '../../src/text/batches.ts'
import { readExamples } from '../../src/text/examples.ts'
import { evaluateBatches } from '../../src/train/evaluate.ts'
import { saveResult } from '../../src/export/save.ts'
import { startTraining, train } from '../../src/train/trainer.ts'

const args = process.argv.slice(2)
const model = modelFolder(args)
const steps = args.includes('--steps') ? Number(args[args.indexOf('--steps') + 1]) : 20
const [batchSize, accumulation, count] = [2, 2, 80]
const script = (name: string): string => fileURLToPath(new URL(`../../../test/parity/${name}`, import.meta.url))

/** Prints the comparison and remembers whether any failed. */
function check(what: string, difference: number, tolerance: number): void {
  const passed = difference < tolerance
  console.log(
    `${passed ? 'ok  ' : 'FAIL'} ${what}: largest difference ${difference.toExponential(1)}, allowed ${tolerance}`,
  )
  if (!passed) process.exitCode = 1
}

async function compare(python: string, work: string): Promise<void> {
  const [trainFile, validFile] = [join(work, 'train.jsonl'), join(work, 'valid.jsonl')]
  await writeFile(trainFile, toJsonl(realShapedExamples({ count, seed: 1 })))
  await writeFile(validFile, toJsonl(realShapedExamples({ count: 20, seed: 2 })))
  const config = parseTrainConfig({
    model,
    train: trainFile,
    outputDir: join(work, 'adapter'),
    r: 32,
    loraAlpha: 64,
    learningRate: 2e-4,
    maxLength: 512,
    perDeviceTrainBatchSize: batchSize,
    gradientAccumulationSteps: accumulation,
    maxSteps: steps,
    saveStrategy: 'no',
    seed: 7,
  })
  await using session = await openSession({ model, training: { lora: config, init: 'pretrained', seed: 7 } })
  const opened = await session.load({ activations: 'keep', expandWeights: true, headRows: 512 })
  const { tokenizer, trainables, pipeline, regimeOf, adaptation, lora, storage } = opened
  const { examples } = await readExamples({ sources: [{ path: trainFile, weight: 1 }], tokenizer, maxLength: 512 })
  const save = (folder: string): Promise<void> =>
    saveResult({
      folder,
      trainables,
      base: { name: model, config: '{}', companions: new Map() },
      lora,
      fileName: adaptation.fileName,
      storage,
      saveDtype: 'auto',
      maxShardSize: 5e9,
      facts: [],
    })
  await save(join(work, 'initial'))
  const order = Array.from({ length: steps }, (_, step) =>
    stepBatches({ examples, seed: 7, step, batchSize, accumulation }).batches.map((batch) =>
      batch.examples.map((example) => example.line - 1),
    ),
  )
  await writeFile(join(work, 'steps.json'), JSON.stringify(order))

  const losses: number[] = []
  const training = startTraining({ config, pipeline, trainables, examples, regimeOf })
  const run = train(training, {
    valid: undefined,
    saveCheckpoint: () => Promise.reject(new Error('not asked for')),
    cancelled: () => false,
  })
  for await (const event of run) if (event.type === 'step') losses.push(event.loss)
  await save(join(work, 'adapter'))
  const valid = await readExamples({ sources: [{ path: validFile, weight: 1 }], tokenizer, maxLength: 512 })
  const ours = await evaluateBatches({ pipeline, batches: evalBatches(valid.examples, 4) })

  const common = ['--model', model, '--max-length', '512']
  const peft = await runPython<{ loss: number[] }>(python, script('peft_train.py'), [
    ...common,
    '--adapter',
    join(work, 'initial'),
    '--data',
    trainFile,
    '--steps',
    join(work, 'steps.json'),
    '--learning-rate',
    '2e-4',
  ])
  const theirs = await runPython<{ loss: number; tokenAccuracy: number }>(python, script('peft_eval.py'), [
    ...common,
    '--adapter',
    join(work, 'adapter'),
    '--data',
    validFile,
  ])
  losses.forEach((loss, i) => {
    console.log(`step ${i + 1}: here ${loss.toFixed(6)}, PEFT ${(peft.loss[i] ?? NaN).toFixed(6)}`)
  })
  console.log(`evaluation of the saved adapter: here ${ours.loss.toFixed(6)}, PEFT ${theirs.loss.toFixed(6)}`)
  check(
    `loss of ${losses.length} steps`,
    Math.max(...losses.map((loss, i) => Math.abs(loss - (peft.loss[i] ?? NaN)))),
    1e-3,
  )
  check('evaluation loss', Math.abs(ours.loss - theirs.loss), 1e-4)
}

const python = await findPython()
if (python !== undefined) {
  const work = await mkdtemp(join(tmpdir(), 'lowrank-parity-'))
  try {
    await compare(python, work)
  } finally {
    await rm(work, { recursive: true })
  }
}
