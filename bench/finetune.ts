/*
 * What a user of the well-known Python script would see: one epoch of 100 real-shaped examples (batch 4, accumulation 4, LoRA r 32 on
 * q and v, dropout 0.05), wall time and final evaluation loss, here and with PEFT and transformers' Trainer.
 *
 *     npm run bench:finetune -- --model DIR
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { defaultThreads } from '../src/engine/machine.ts'
import { evaluate, finetune } from '../src/index.ts'
import { realShapedExamples, toJsonl } from './data.ts'
import { findPython, modelFolder, runNode, runPython } from './python.ts'

interface RunResult {
  readonly trainSeconds: number
  readonly totalSeconds: number
  readonly evalLoss: number
  readonly peakMemory: number
}

async function run(model: string, work: string): Promise<RunResult> {
  const outputDir = join(work, 'adapter')
  const start = performance.now()
  let trainSeconds = 0
  let peakMemory = 0
  const events = finetune({
    model,
    train: join(work, 'train.jsonl'),
    outputDir,
    r: 32,
    loraAlpha: 64,
    targetModules: ['q_proj', 'v_proj'],
    loraDropout: 0.05,
    maxLength: 512,
    perDeviceTrainBatchSize: 4,
    gradientAccumulationSteps: 4,
    numTrainEpochs: 1,
    learningRate: 2e-4,
    saveStrategy: 'no',
  })
  for await (const event of events) {
    if (event.type === 'step') trainSeconds += event.seconds
    if (event.type === 'done') peakMemory = event.peakMemory
  }
  const totalSeconds = (performance.now() - start) / 1000
  const { loss } = await evaluate({ model, adapter: outputDir, data: join(work, 'valid.jsonl'), maxLength: 512 })
  return { trainSeconds, totalSeconds, evalLoss: loss, peakMemory }
}

const args = process.argv.slice(2)
const model = modelFolder(args)
const self = fileURLToPath(import.meta.url)
const child = args.includes('--work') ? args[args.indexOf('--work') + 1] : undefined

function show(name: string, result: RunResult): void {
  const { trainSeconds, totalSeconds, evalLoss, peakMemory } = result
  console.log(
    `${name}: ${trainSeconds.toFixed(1)} s training, ${totalSeconds.toFixed(1)} s in all, evaluation loss ${evalLoss.toFixed(4)}, ` +
      `peak ${(peakMemory / 1e9).toFixed(2)} GB`,
  )
}

if (child !== undefined) {
  console.log(JSON.stringify(await run(model, child)))
} else {
  const work = await mkdtemp(join(tmpdir(), 'lowrank-bench-'))
  try {
    await writeFile(join(work, 'train.jsonl'), toJsonl(realShapedExamples({ count: 100, seed: 1 })))
    await writeFile(join(work, 'valid.jsonl'), toJsonl(realShapedExamples({ count: 40, seed: 2 })))
    const ours = await runNode<RunResult>(self, ['--model', model, '--work', work])
    show('lowrank', ours)
    const python = await findPython()
    const script = fileURLToPath(new URL('../../bench/peft_trainer.py', import.meta.url))
    const data = ['--train', join(work, 'train.jsonl'), '--valid', join(work, 'valid.jsonl')]
    for (const [name, flags] of python === undefined
      ? []
      : ([
          ['f32', []],
          ['bf16', ['--bf16']],
        ] as const)) {
      const common = ['--model', model, ...data, '--threads', String(defaultThreads()), ...flags]
      const theirs = await runPython<RunResult>(python ?? '', script, common)
      show(`PEFT + Trainer ${name}`, theirs)
      console.log(
        `  lowrank is ${(theirs.trainSeconds / ours.trainSeconds).toFixed(2)} x as fast training, ` +
          `${(theirs.totalSeconds / ours.totalSeconds).toFixed(2)} x in all, evaluation loss ${(ours.evalLoss - theirs.evalLoss).toFixed(4)} apart`,
      )
    }
  } finally {
    await rm(work, { recursive: true })
  }
}
