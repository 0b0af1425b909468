/*
 * What shared prefixes save: optimizer steps over the same generated examples, with `sharePrefixes` off and auto, in one process and in turn,
 * so that what else the machine does hits both alike; and PEFT's step over as many examples of the same length, where Python is present.
 *
 *     npm run bench:prefix -- --model DIR [--batch 16] [--accumulation 4] [--steps 4] [--instruction 300] [--ticket 40] [--activations keep]
 *         [--only a]
 *
 * (a) 1,000 examples of a classification: an instruction that all have, a ticket, a label of two tokens.
 * (b) As long, but nothing in common: what looking for it costs.
 */
import { fileURLToPath } from 'node:url'
import { defaultThreads } from '../src/engine/machine.ts'
import { openDecoder } from '../src/session/decoder.ts'
import { stepBatches, stepsPerEpoch, type TrainingOrder } from '../src/text/batches.ts'
import type { Example } from '../src/text/example.ts'
import { makeOptimizer } from '../src/train/optimizer.ts'
import { accumulateGradients } from '../src/train/step.ts'
import { stream, uniform } from '../src/util/random.ts'
import { findPython, modelFolder, runPython } from './python.ts'
import { countFlag, flagValue, median } from './training-step.ts'

const [examplesInAll, labels] = [1000, 2]

/** Random tokens, of which the first `common` are the same in all and the last two are labels. */
function examplesOf(vocabSize: number, tokens: number, common: number): Example[] {
  const idsOf = (name: string, number: number, length: number): Int32Array =>
    Int32Array.from(uniform(stream(1, name, number), length), (value) => Math.floor(value * vocabSize))
  const instruction = idsOf('instruction', 0, common)
  return Array.from({ length: examplesInAll }, (_, i) => {
    const ids = idsOf('ids', i, tokens)
    ids.set(instruction)
    return { ids, labelMask: new Uint8Array(tokens).fill(1, tokens - labels), line: i + 1 }
  })
}

const args = process.argv.slice(2)
const model = modelFolder(args)
const [batchSize, accumulation] = [countFlag(args, '--batch', 16), countFlag(args, '--accumulation', 4)]
const steps = countFlag(args, '--steps', 4)
const [instruction, ticket] = [countFlag(args, '--instruction', 300), countFlag(args, '--ticket', 40)]
const activations = flagValue(args, '--activations') === 'recompute' ? 'recompute' : 'keep'
const keeps = activations === 'keep'
const length = instruction + ticket + labels

const lora = {
  r: 32,
  loraAlpha: 64,
  targetModules: ['q_proj', 'v_proj'],
  loraDropout: 0,
  bias: 'none',
  useRslora: false,
}
const decoder = await openDecoder({
  model,
  training: { lora: { ...lora, bias: 'none' }, init: 'pretrained', seed: 1 },
  choice: { activations, expandWeights: keeps, headRows: keeps ? 512 : 128 },
})
const { pipeline, trainables, regimeOf, config } = decoder
const optimizer = makeOptimizer(trainables.values(), {
  optim: 'adamw',
  adamBeta1: 0.9,
  adamBeta2: 0.999,
  adamEpsilon: 1e-8,
  weightDecay: 0,
})
console.log(
  `${examplesInAll} examples of ${length} tokens, ${labels} of them labels; ${batchSize} x ${accumulation} a step, ${steps} steps; ` +
    `LoRA r 32 on q_proj and v_proj, activations: ${activations}`,
)

interface Taken {
  readonly seconds: number
  readonly loss: number
}

async function take(order: TrainingOrder, step: number): Promise<Taken> {
  const start = performance.now()
  const { batches } = stepBatches({ ...order, step })
  const sums = await accumulateGradients({ pipeline, trainables, batches, seed: 1, step })
  optimizer.step(0, 1 / sums.labelTokens)
  return { seconds: (performance.now() - start) / 1000, loss: sums.lossSum / sums.labelTokens }
}

/** The same steps in both ways, begun by another each time; seconds of each. */
async function compare(
  what: string,
  examples: readonly Example[],
): Promise<{ readonly off: number; readonly auto: number }> {
  const order = { examples, seed: 1, batchSize, accumulation, regimeOf }
  const ways = { off: order, auto: { ...order, sharePrefixes: true } }
  const positions = (way: TrainingOrder): number => {
    const batches = Array.from({ length: stepsPerEpoch(order) }, (_, step) => stepBatches({ ...way, step }).batches)
    return batches.flat().reduce((total, { batch, seq }) => total + batch * seq, 0)
  }
  const [all, some] = [positions(ways.off), positions(ways.auto)]
  const shapes = stepBatches({ ...ways.auto, step: 0 }).batches.map(({ batch, seq }) => `${batch} x ${seq}`)
  console.log(
    `${what}: ${all} positions an epoch, ${some} with shared prefixes (${(all / some).toFixed(2)} x fewer); a step: ${shapes.join(', ')}`,
  )
  const seconds = { off: [] as number[], auto: [] as number[] }
  for (let step = 0; step <= steps; step++) {
    const found = new Map<keyof typeof ways, Taken>()
    for (const way of step % 2 === 0 ? (['off', 'auto'] as const) : (['auto', 'off'] as const)) {
      found.set(way, await take(ways[way], step))
    }
    const [off, auto] = [found.get('off')!, found.get('auto')!]
    if (Math.abs(auto.loss / off.loss - 1) > 1e-5) throw new Error(`step ${step}: losses ${off.loss} and ${auto.loss}`)
    // The first is of warm-up.
    if (step === 0) continue
    seconds.off.push(off.seconds)
    seconds.auto.push(auto.seconds)
    process.stderr.write(`\r${step} of ${steps} steps`)
  }
  process.stderr.write('\n')
  const ratios = seconds.off.map((off, i) => off / seconds.auto[i]!)
  const [off, auto] = [median(seconds.off), median(seconds.auto)]
  const rate = (one: number): string =>
    `${((batchSize * accumulation) / one).toFixed(2)} examples/s (${one.toFixed(2)} s a step)`
  console.log(
    `  off ${rate(off)}, auto ${rate(auto)}; median of the steps' ratios ${median(ratios).toFixed(3)} ` +
      `(${Math.min(...ratios).toFixed(3)} to ${Math.max(...ratios).toFixed(3)})`,
  )
  return { off, auto }
}

const shared = await compare('(a) an instruction in common', examplesOf(config.vocabSize, length, instruction))
if (flagValue(args, '--only') !== 'a') await compare('(b) nothing in common', examplesOf(config.vocabSize, length, 0))
await decoder.close()

const python = await findPython()
if (python !== undefined) {
  const script = fileURLToPath(new URL('../../bench/peft_step.py', import.meta.url))
  for (const dtype of ['float32', 'bfloat16']) {
    const sizes = ['--batch', String(batchSize), '--length', String(length), '--labels', String(labels)]
    const flags = ['--model', model, '--dtype', dtype, '--threads', String(defaultThreads()), ...sizes]
    const { seconds } = await runPython<{ seconds: number }>(python, script, [
      ...flags,
      '--steps',
      String(Math.min(steps, 3)),
    ])
    const perStep = seconds * accumulation
    console.log(
      `PEFT ${dtype}: ${(batchSize / seconds).toFixed(2)} examples/s; lowrank is ${(perStep / shared.auto).toFixed(2)} x as fast with shared ` +
        `prefixes, ${(perStep / shared.off).toFixed(2)} x without`,
    )
  }
}
