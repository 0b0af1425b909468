/*
 * What packing saves: optimizer steps over the same generated examples of mixed length, laid out in three ways, in one process and in
 * turn, so that what else the machine does hits all alike.
 *
 *     npm run bench:packing -- --model DIR [--batch 16] [--steps 12] [--activations keep]
 *
 * (a) Each step one batch, padded to its longest example: the default of transformers' Trainer.
 * (b) Lowrank's default: the step's examples sorted by length, cut into micro-batches where that pays.
 * (c) Packed.
 */
import { openDecoder } from '../src/session/decoder.ts'
import { makeBatch, stepBatches, stepsPerEpoch, type Batch } from '../src/text/batches.ts'
import type { Example } from '../src/text/example.ts'
import { makeOptimizer } from '../src/train/optimizer.ts'
import { accumulateGradients } from '../src/train/step.ts'
import { fillNormal, stream, uniform } from '../src/util/random.ts'
import { modelFolder } from './python.ts'
import { countFlag, flagValue, median } from './training-step.ts'

const [examplesInAll, medianTokens, spread, mostTokens] = [1000, 60, 0.8, 512]

/** Lengths log-normal, cut to what is allowed; random tokens, of which the second half are labels. */
function mixedExamples(vocabSize: number): Example[] {
  const normal = new Float32Array(examplesInAll)
  fillNormal(normal, 0, 1, stream(1, 'lengths'))
  return Array.from(normal, (z, line) => {
    const length = Math.min(mostTokens, Math.max(8, Math.round(medianTokens * Math.exp(spread * z))))
    const ids = Int32Array.from(uniform(stream(1, 'ids', line), length), (value) => Math.floor(value * vocabSize))
    return { ids, labelMask: new Uint8Array(length).fill(1, Math.ceil(length / 2)), line: line + 1 }
  })
}

const args = process.argv.slice(2)
const [batchSize, steps] = [countFlag(args, '--batch', 16), countFlag(args, '--steps', 12)]
const activations = flagValue(args, '--activations') === 'recompute' ? 'recompute' : 'keep'
const decoder = await openDecoder({
  model: modelFolder(args),
  training: {
    lora: {
      r: 32,
      loraAlpha: 64,
      targetModules: ['q_proj', 'v_proj'],
      loraDropout: 0,
      bias: 'none',
      useRslora: false,
    },
    init: 'pretrained',
    seed: 1,
  },
  choice: { activations, expandWeights: activations === 'keep', headRows: activations === 'keep' ? 512 : 128 },
})
const { pipeline, trainables, config } = decoder
const optimizer = makeOptimizer(trainables.values(), {
  optim: 'adamw',
  adamBeta1: 0.9,
  adamBeta2: 0.999,
  adamEpsilon: 1e-8,
  weightDecay: 0,
})
const examples = mixedExamples(config.vocabSize)
const sorted = examples.map(({ ids }) => ids.length).sort((a, b) => a - b)
const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!
console.log(
  `${examplesInAll} examples, log-normal, spread ${spread}: 10 % up to ${at(0.1)} tokens, median ${at(0.5)}, ` +
    `90 % up to ${at(0.9)}, 99 % up to ${at(0.99)}, longest ${at(1)}, mean ${mean(sorted).toFixed(0)}; half of them labels`,
)
console.log(`LoRA r 32 on q_proj and v_proj; ${batchSize} examples a step; activations: ${activations}; ${steps} steps`)

const order = { examples, seed: 1, batchSize, accumulation: 1 }
const layouts = {
  'a padded to the longest': (step: number): Batch[] => [
    makeBatch(stepBatches({ ...order, step }).batches.flatMap((batch) => batch.examples)),
  ],
  'b sorted, cut': (step: number): Batch[] => [...stepBatches({ ...order, step }).batches],
  'c packed': (step: number): Batch[] => [...stepBatches({ ...order, step, packing: true }).batches],
}
const names = Object.keys(layouts) as (keyof typeof layouts)[]
// The measured steps are a sample: what all of the epoch would compute tells how good a one.
const whole = names.map((name) => {
  const positions = Array.from({ length: stepsPerEpoch(order) }, (_, step) =>
    layouts[name](step).map(({ batch, seq }) => batch * seq),
  )
  return sum(positions.flat())
})
console.log(
  `positions of a whole epoch: ${whole.map((n, i) => `${names[i]![0]} ${n}, ${(whole[0]! / n).toFixed(2)} x fewer`).join('; ')}`,
)
const found = new Map(
  names.map((name) => [name, { seconds: [] as number[], cpuSeconds: 0, tokens: 0, realTokens: 0, passes: 0 }]),
)

async function run(name: keyof typeof layouts, step: number): Promise<void> {
  const [start, cpu] = [performance.now(), process.cpuUsage()]
  const batches = layouts[name](step)
  const { tokens, realTokens, labelTokens } = await accumulateGradients({
    pipeline,
    trainables,
    batches,
    seed: 1,
    step,
  })
  optimizer.step(1e-4, 1 / labelTokens)
  const sums = found.get(name)!
  sums.seconds.push((performance.now() - start) / 1000)
  const { user, system } = process.cpuUsage(cpu)
  sums.cpuSeconds += (user + system) / 1e6
  sums.tokens += tokens
  sums.realTokens += realTokens
  sums.passes += batches.length
}

// A round of warm-up, not counted; then each step in all three ways, begun by another each time.
for (const name of names) await run(name, 0)
for (const sums of found.values())
  Object.assign(sums, { seconds: [], cpuSeconds: 0, tokens: 0, realTokens: 0, passes: 0 })
for (let step = 1; step <= steps; step++) {
  for (let i = 0; i < names.length; i++) await run(names[(i + step) % names.length]!, step)
  process.stderr.write(`\r${step} of ${steps} steps`)
}
process.stderr.write('\n')
await decoder.close()

const padded = found.get(names[0]!)!.seconds
const paddedCpu = found.get(names[0]!)!.cpuSeconds
for (const [name, { seconds, cpuSeconds, tokens, realTokens, passes }] of found) {
  const total = sum(seconds)
  const ratios = seconds.map((value, i) => padded[i]! / value)
  console.log(
    `${name.padEnd(24)} ${((steps * batchSize) / total).toFixed(2)} examples/s  median step ${median(seconds).toFixed(2)} s  ` +
      `padding ${(100 * (1 - realTokens / tokens)).toFixed(1)} %  ${(passes / steps).toFixed(1)} passes a step  ` +
      `${(sum(padded) / total).toFixed(2)} x (a), median of the steps' ratios ${median(ratios).toFixed(2)}, ` +
      `of processor time ${(paddedCpu / cpuSeconds).toFixed(2)}`,
  )
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

function mean(values: readonly number[]): number {
  return sum(values) / values.length
}
