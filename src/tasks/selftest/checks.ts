import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseTrainConfig, type TrainConfig } from '../../config/index.ts'
import { runFinetune } from '../finetune.ts'
import type { OpenDecoder } from '../../session/decoder.ts'
import { seed, type SelftestContext, type Subject } from './context.ts'
import { examplesPerStep } from './data.ts'
import { derivativeError, gradientDistance, gradientsOf, type Directions, type Gradients } from './gradients.ts'
import { batchOf, makeBatch, stepBatches, type Batch } from '../../text/batches.ts'
import type { Example } from '../../text/example.ts'
import { saveResult } from '../../export/save.ts'
import { LowrankError } from '../../util/errors.ts'

/** What a check found: it passes where `value` is at most `allowed`. */
interface Figure {
  readonly value: number
  readonly allowed: number
}

/** A promise that is tried on the user's model. */
export interface Check {
  readonly name: string
  /** What its value is. */
  readonly figure: string
  /** Whether it trains weights of the base, which a quantized one does not allow. */
  readonly trainsBase?: boolean
  run(context: SelftestContext): Promise<Figure>
}

const adapter: Subject = { trained: 'adapter' }
const dropout: Subject = { trained: 'adapter', dropout: 0.1 }
const all: Subject = { trained: 'all' }

/** Far above what differences of losses in f32 are found to be off by, and far below what a wrong rule is. */
const allowedSlope = { along: 1e-3, across: 1e-2 } satisfies Record<Directions, number>

/** The gradient of some parameters against differences of losses. */
function slopeChecks(what: string, subject: Subject, only: (name: string) => boolean): Check[] {
  const { trained } = subject
  const isSlow = trained === 'all' || subject.dropout !== undefined
  // An adapter bends the loss less than the weights of the base do, and rounding counts more.
  const reach = trained === 'adapter' ? 0.16 : 0.04
  return (['along', 'across'] as const).map((directions) => ({
    name: `gradient of ${what}, ${directions === 'along' ? 'along itself' : 'random directions'}`,
    figure: 'relative error of the slope',
    trainsBase: trained === 'all',
    run: async (context) => {
      const value = await derivativeError(await context.model(subject), isSlow ? someOf(context) : together(context), {
        only,
        directions,
        reach,
      })
      return { value, allowed: allowedSlope[directions] }
    },
  }))
}

const isSmall = (name: string): boolean => /(norm\.weight|\.bias)$/.test(name)
const isEmbedding = (name: string): boolean => /(embed_tokens|lm_head)\.weight$/.test(name)
/** Of two blocks: directions and copies for all of them would take three times the memory of the model. */
const isLinear = (name: string): boolean => /\.[01]\..*\.weight$/.test(name) && !isSmall(name)

/** All checks, in an order in which those that want the same model follow each other. */
export const checks: readonly Check[] = [
  ...slopeChecks('LoRA A', adapter, (name) => name.endsWith('.lora_A.weight')),
  ...slopeChecks('LoRA B', adapter, (name) => name.endsWith('.lora_B.weight')),
  {
    name: 'accumulation 8 x 1, 4 x 2, 2 x 4, 1 x 8',
    figure: 'relative difference of gradients',
    run: async (context) => {
      const model = await context.model(adapter)
      const found: Gradients[] = []
      for (const batchSize of [8, 4, 2, 1]) {
        const accumulation = examplesPerStep / batchSize
        const order = { examples: context.examples, seed, batchSize, accumulation }
        found.push(await gradientsOf(model, stepBatches({ ...order, step: 0 }).batches))
      }
      return { value: distance(found), allowed: 1e-5 }
    },
  },
  {
    name: 'packing',
    figure: 'relative difference of gradients',
    run: async (context) => {
      const model = await context.model(adapter)
      const rows = [0, 4].map((start) => context.examples.slice(start, start + 4))
      const packed = await gradientsOf(model, [batchOf(rows, {})])
      return { value: distance([await gradientsOf(model, together(context)), packed]), allowed: 1e-5 }
    },
  },
  {
    name: 'saved and opened again',
    figure: 'logits that differ',
    run: async (context) => {
      const { config, folder, examples } = context
      const model = await context.model(adapter)
      const before = await logitsOf(model, examples)
      const saved = join(folder, 'saved')
      await saveResult({
        folder: saved,
        trainables: model.trainables,
        lora: model.lora,
        fileName: model.adaptation.fileName,
        base: { name: config.model, config: '{}', companions: new Map() },
        storage: model.storage,
        saveDtype: 'auto',
        maxShardSize: Infinity,
        facts: [],
      })
      await context.close()
      const again = await context.model({ ...adapter, folder: saved })
      return { value: differences(before, await logitsOf(again, examples)), allowed: 0 }
    },
  },
  {
    name: 'activations kept or recomputed',
    figure: 'relative difference of gradients',
    run: async (context) => {
      const found: Gradients[] = []
      for (const activations of ['keep', 'recompute'] as const) {
        found.push(await gradientsOf(await context.model({ ...dropout, activations }), halves(context)))
      }
      return { value: distance(found), allowed: 1e-5 }
    },
  },
  ...slopeChecks('an adapter with dropout', dropout, () => true),
  {
    name: 'the same step twice',
    figure: 'numbers that differ',
    run: async (context) => {
      const model = await context.model(dropout)
      const [first, second] = [await gradientsOf(model, halves(context)), await gradientsOf(model, halves(context))]
      return { value: differences([...first.of.values()], [...second.of.values()]), allowed: 0 }
    },
  },
  {
    name: 'stopped and resumed',
    figure: 'bytes of the adapter that differ',
    run: async (context) => {
      await context.close()
      return {
        value: differences([await trained(context, {})], [await trained(context, { stopAfter: 2 })]),
        allowed: 0,
      }
    },
  },
  ...slopeChecks('norms and biases', all, isSmall),
  ...slopeChecks('linear layers', all, isLinear),
  ...slopeChecks('embedding and head', all, isEmbedding),
]

/** All examples in one micro-batch. */
function together({ examples }: SelftestContext): Batch[] {
  return [makeBatch(examples)]
}

/** The examples in two micro-batches. */
function halves({ examples }: SelftestContext): Batch[] {
  return [makeBatch(examples.slice(0, 4)), makeBatch(examples.slice(4))]
}

/** Half of the examples, for what takes long: losses with dropout, by the programs of training, and changes of many weights. */
function someOf(context: SelftestContext): Batch[] {
  return halves(context).slice(0, 1)
}

function distance([first, ...others]: readonly Gradients[]): number {
  return Math.max(...others.map((other) => (first === undefined ? NaN : gradientDistance(first, other))))
}

/** How many elements differ; all of them where there are not as many. */
function differences(one: readonly ArrayLike<number>[], other: readonly ArrayLike<number>[]): number {
  if (one.length !== other.length) return Infinity
  return one.reduce((total, values, i) => {
    const others = other[i]!
    if (values.length !== others.length) return Infinity
    let count = 0
    for (let at = 0; at < values.length; at++) if (!Object.is(values[at], others[at])) count++
    return total + count
  }, 0)
}

/** Logits after each of a few texts. */
async function logitsOf({ pipeline }: OpenDecoder, examples: readonly Example[]): Promise<Float32Array[]> {
  const logits: Float32Array[] = []
  for (const { ids } of examples.slice(0, 3)) logits.push(await pipeline.nextLogits(ids))
  return logits
}

/** The bytes of what four steps of training leave, in one go or stopped after some steps and resumed. */
async function trained(context: SelftestContext, { stopAfter }: { readonly stopAfter?: number }): Promise<Uint8Array> {
  const outputDir = join(context.folder, stopAfter === undefined ? 'straight' : 'resumed')
  const config = parseTrainConfig({
    ...context.baseOptions,
    ...(context.config.adapter === undefined ? { r: 4, loraDropout: 0.1 } : {}),
    train: context.data,
    outputDir,
    maxSteps: 4,
    perDeviceTrainBatchSize: 2,
    gradientAccumulationSteps: 2,
    learningRate: 1e-3,
    warmupSteps: 2,
    saveStrategy: 'no',
    activations: 'recompute',
    seed,
  })
  if (stopAfter !== undefined) await run(config, { stopAfter, cancelled: context.cancelled })
  await run({ ...config, resume: stopAfter !== undefined }, { cancelled: context.cancelled })
  return readFile(join(outputDir, 'adapter_model.safetensors'))
}

/** Runs a training, or its first steps. */
async function run(
  config: TrainConfig,
  { stopAfter = Infinity, cancelled }: { readonly stopAfter?: number; readonly cancelled: () => boolean },
): Promise<void> {
  let done = 0
  try {
    for await (const event of runFinetune(config, { cancelled: () => cancelled() || done >= stopAfter })) {
      if (event.type === 'step') done = event.step
    }
  } catch (error) {
    if (!(error instanceof LowrankError && error.code === 'cancelled') || cancelled()) throw error
  }
}
