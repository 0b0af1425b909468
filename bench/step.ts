/*
 * Time and memory of one training step (forward and backward of 4 x 256 tokens, half of them labels, LoRA r 32 on q and v),
 * as a share of what the machine's matrix products allow, and against PEFT where Python is present.
 *
 *     npm run bench:step -- --model DIR
 */
import { fileURLToPath } from 'node:url'
import { defaultThreads, peakMemory } from '../src/engine/machine.ts'
import { productRate } from '../src/engine/product-rate.ts'
import { linearSpecs } from '../src/model/weight-specs.ts'
import type { OpenDecoder } from '../src/session/decoder.ts'
import { findPython, modelFolder, runNode, runPython } from './python.ts'
import { flagValue, length, median, openTrainingStep, rank, rows } from './training-step.ts'

interface StepResult {
  readonly seconds: number
  readonly limitSeconds: number
  readonly gigaflops: number
  readonly peakMemory: number
}

/** Floating point operations of the products that a step cannot do without; recomputed ones do not count. */
function neededFlops({ config }: OpenDecoder): number {
  const tokens = rows * length
  const linears = linearSpecs(config)
  const frozen = linears.reduce(
    (total, { inFeatures, outFeatures }) => total + 2 * 2 * tokens * inFeatures * outFeatures,
    0,
  )
  // Past its attention, the last block is needed at the positions that predict a label only, which are half of them.
  const spared = linears
    .filter(({ module }) => !/[qkv]_proj$/.test(module))
    .reduce((total, { inFeatures, outFeatures }) => total + 2 * 2 * (tokens / 2) * inFeatures * outFeatures, 0)
  const adapters = linears
    .filter(({ module }) => /[qv]_proj$/.test(module))
    .reduce((total, { inFeatures, outFeatures }) => total + 3 * 2 * tokens * rank * (inFeatures + outFeatures), 0)
  // Scores and mix forward; each of the two has two products backward.
  const attention = 3 * 2 * 2 * rows * config.numAttentionHeads * length * length * config.headDim
  const head = 2 * 2 * (tokens / 2) * config.hiddenSize * config.vocabSize
  return config.numHiddenLayers * (frozen + adapters + attention) - spared + head
}

async function measure(model: string, activations: 'keep' | 'recompute', steps: number): Promise<StepResult> {
  const { decoder, run } = await openTrainingStep({ model, activations, expandWeights: activations === 'keep' })
  const times: number[] = []
  for (let step = 0; step < steps + 2; step++) {
    const seconds = await run()
    if (step >= 2) times.push(seconds)
  }
  const peak = peakMemory()
  const { config, threads } = decoder
  const rate = await productRate(linearSpecs(config), { rows: rows * length, threads })
  await decoder.close()
  return { seconds: median(times), limitSeconds: neededFlops(decoder) / rate, gigaflops: rate / 1e9, peakMemory: peak }
}

async function report(model: string): Promise<void> {
  const self = fileURLToPath(import.meta.url)
  const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`
  const found = new Map<string, StepResult>()
  for (const activations of ['keep', 'recompute'] as const) {
    const result = await runNode<StepResult>(self, ['--model', model, '--run', activations])
    found.set(activations, result)
    console.log(
      `${activations}: ${result.seconds.toFixed(2)} s a step, ${((100 * result.limitSeconds) / result.seconds).toFixed(0)} % of the ` +
        `limit (${result.limitSeconds.toFixed(2)} s at ${result.gigaflops.toFixed(0)} GFLOP/s), peak ${gigabytes(result.peakMemory)}`,
    )
  }
  const python = await findPython()
  if (python === undefined) return
  const script = fileURLToPath(new URL('../../bench/peft_step.py', import.meta.url))
  const keep = found.get('keep')?.seconds ?? NaN
  for (const dtype of ['float32', 'bfloat16']) {
    const args = ['--model', model, '--dtype', dtype, '--threads', String(defaultThreads())]
    const peft = await runPython<{ seconds: number; peakMemory: number }>(python, script, args)
    console.log(
      `PEFT ${dtype}: ${peft.seconds.toFixed(2)} s a step, peak ${gigabytes(peft.peakMemory)}; ` +
        `lowrank keep is ${(peft.seconds / keep).toFixed(2)} x as fast`,
    )
  }
}

const args = process.argv.slice(2)
const model = modelFolder(args)
const mode = flagValue(args, '--run')
if (mode === 'keep' || mode === 'recompute') console.log(JSON.stringify(await measure(model, mode, 7)))
else await report(model)
