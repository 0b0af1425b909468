/*
 * Time and memory of one training step (forward and backward of 4 x 256 tokens, half of them labels, LoRA r 32 on q and v),
 * as a share of what the machine's matrix products allow, and against PEFT where Python is present.
 *
 *     npm run bench:step -- --model DIR
 */
import { fileURLToPath } from 'node:url'
import { defaultThreads, peakMemory } from '../src/engine/machine.ts'
import { Runtime } from '../src/engine/onnxruntime/runtime.ts'
import { b } from '../src/graph/build.ts'
import { program } from '../src/graph/program.ts'
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

/** The best rate of f32 products of the block's shapes, in operations a second. */
async function productRate({ config, threads }: OpenDecoder): Promise<number> {
  const runtime = new Runtime({ threads })
  const m = rows * length
  let best = 0
  for (const { inFeatures: k, outFeatures: n } of linearSpecs(config)) {
    const x = b.input('x', { dtype: 'f32', shape: [m, k] })
    const w = b.input('w', { dtype: 'f32', shape: [n, k] })
    // The sum keeps the result inside: copying it out is not part of the product.
    const sum = b.reduceSum(b.linear(x, w), [0, 1])
    const product = program({
      name: 'product',
      inputs: [
        { name: 'x', value: x },
        { name: 'w', value: w },
      ],
      outputs: [{ name: 'sum', value: sum }],
    })
    const feeds = {
      x: { dtype: 'f32', shape: [m, k], data: new Float32Array(m * k).fill(0.5) },
      w: { dtype: 'f32', shape: [n, k], data: new Float32Array(n * k).fill(0.5) },
    } as const
    const times: number[] = []
    for (let i = 0; i < 30; i++) {
      const start = performance.now()
      await runtime.run(product, feeds)
      times.push(performance.now() - start)
    }
    best = Math.max(best, (2 * m * n * k) / (median(times) / 1000))
  }
  await runtime.close()
  return best
}

async function measure(model: string, activations: 'keep' | 'recompute', steps: number): Promise<StepResult> {
  const { decoder, run } = await openTrainingStep({ model, activations, expandWeights: activations === 'keep' })
  const times: number[] = []
  for (let step = 0; step < steps + 2; step++) {
    const seconds = await run()
    if (step >= 2) times.push(seconds)
  }
  const peak = peakMemory()
  const rate = await productRate(decoder)
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
