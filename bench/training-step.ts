/*
 * The training step that benchmarks measure: forward, backward and optimizer of 4 x 256 random tokens, half of them labels, with LoRA
 * of rank 32 on q and v and no dropout.
 */
import type { MatmulPrecision } from '../src/config/index.ts'
import { type OpenDecoder, type OpenOptions, PreparedDecoder } from '../src/session/decoder.ts'
import { headRowsOf } from '../src/session/plan.ts'
import { makeBatch } from '../src/text/batches.ts'
import { AdamW, isDecayed } from '../src/train/optimizer.ts'
import { accumulateGradients } from '../src/train/step.ts'
import { fillUniform, stream, uniform } from '../src/util/random.ts'

export const [rows, length, rank] = [4, 256, 32]

export interface TrainingStep {
  readonly decoder: OpenDecoder
  /** Takes one step; its seconds. */
  readonly run: () => Promise<number>
}

export async function openTrainingStep(options: {
  readonly model: string
  readonly activations: 'keep' | 'recompute'
  /** Whether frozen 16-bit weights are expanded to f32. */
  readonly expandWeights: boolean
  readonly quantization?: OpenOptions['quantization']
  readonly matmulPrecision?: MatmulPrecision
  /** `random`: of the folder config.json alone is read. */
  readonly init?: 'pretrained' | 'random'
}): Promise<TrainingStep> {
  const { model, activations, expandWeights, quantization, matmulPrecision = 'highest', init = 'pretrained' } = options
  const lora = {
    r: rank,
    loraAlpha: 64,
    targetModules: ['q_proj', 'v_proj'],
    loraDropout: 0,
    bias: 'none',
    useRslora: false,
  } as const
  const prepared = await PreparedDecoder.open({
    model,
    quantization,
    training: { lora, init, seed: 1 },
  })
  const [many, some] = headRowsOf(prepared.config)
  const decoder = await prepared.load({
    activations,
    expandWeights,
    headRows: activations === 'keep' ? many : some,
    matmulPrecision,
  })
  const { pipeline, trainables, config } = decoder
  for (const { name, data } of trainables.values()) fillUniform(data, -0.02, 0.02, stream(1, name))
  const optimizer = new AdamW(trainables.values(), {
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: 0,
    decays: isDecayed,
  })
  const random = uniform(stream(1, 'ids'), rows * length)
  const examples = Array.from({ length: rows }, (_, row) => ({
    ids: Int32Array.from(random.subarray(row * length, (row + 1) * length), (value) =>
      Math.floor(value * config.vocabSize),
    ),
    labelMask: new Uint8Array(length).fill(1, length / 2),
    line: row + 1,
  }))
  const batch = makeBatch(examples)
  let step = 0
  const run = async (): Promise<number> => {
    const start = performance.now()
    await accumulateGradients({ pipeline, trainables, batches: [batch], seed: 1, step: step++ })
    optimizer.step(1e-4, 1 / batch.targets.length)
    return (performance.now() - start) / 1000
  }
  return { decoder, run }
}

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((x, y) => x - y)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** The value of a flag, if it is given. */
export function flagValue(args: readonly string[], flag: string): string | undefined {
  return args.includes(flag) ? args[args.indexOf(flag) + 1] : undefined
}

/** The value of a flag that takes a whole number from 1. */
export function countFlag(args: readonly string[], flag: string, otherwise: number): number {
  const text = flagValue(args, flag)
  const value = text === undefined ? otherwise : Number(text)
  if (Number.isSafeInteger(value) && value >= 1) return value
  console.error(`${flag}: found ${text}, expected a whole number from 1`)
  process.exit(2)
}
