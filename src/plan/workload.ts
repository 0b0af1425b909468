import type { TrainConfig } from '../config/index.ts'
import type { TrainingData } from '../session/data.ts'
import type { PreparedDecoder } from '../session/decoder.ts'
import type { Workload } from '../session/memory-items.ts'
import { type BatchSize, longestOf, stepShapes } from '../text/batches.ts'
import { stateBytes } from '../train/optimizer.ts'
import { orderOf, totalSteps } from '../train/trainer.ts'
import { workloadOf } from '../train/workload.ts'
import type { Extent } from './memory.ts'

/** What is known of the work of a run before its method is chosen. */
export interface PlannedWork {
  /** Optimizer steps; undefined where nothing says how many examples there are. */
  readonly steps: number | undefined
  /** Micro-batches of a step that stand for all: what a run computes is `steps` times their mean. */
  readonly sample: readonly (readonly BatchSize[])[]
  /** Tokens of the longest example. */
  readonly longest: number
  readonly examples: number | undefined
  /** Tokens of all examples. */
  readonly tokens: number | undefined
  /** For the memory plan of a run with this configuration; `extent`: with micro-batches of this size instead. */
  readonly workload: (config: RunConfig, extent?: Extent) => Workload
}

/** A run, wherever it writes to. */
export type RunConfig = Omit<TrainConfig, 'train' | 'outputDir'>

/** Steps that are laid out to find the mean of all. */
const sampled = 100

/** The work of a run over data that was read; `regimeOf` is that of its decoder. */
export function workOfData(config: RunConfig, data: TrainingData, regimeOf: PreparedDecoder['regimeOf']): PlannedWork {
  const { examples } = data.train
  const order = orderOf(config, examples, regimeOf)
  const steps = totalSteps(config, examples)
  const stride = Math.max(1, Math.floor(steps / sampled))
  const sample = Array.from({ length: Math.min(steps, Math.ceil(steps / stride)) }, (_, i) =>
    stepShapes({ ...order, step: i * stride }),
  )
  const { tokens, labelTokens, examples: count } = data.train.summary
  const share = labelTokens / Math.max(1, tokens)
  return {
    steps,
    sample,
    longest: longestOf(examples),
    examples: count,
    tokens,
    workload: (run, extent) => {
      const own = workloadOf(run, data, regimeOf)
      const { largest: _, ...others } = own
      return extent === undefined ? own : { ...others, training: sizeOf(extent, share) }
    },
  }
}

/** The work of a run over `examples` examples of `maxLength` tokens, or of nobody knows how many. */
export function workAssumed(config: RunConfig, examples: number | undefined): PlannedWork {
  const { perDeviceTrainBatchSize: batch, gradientAccumulationSteps: accumulation, maxLength, maxSteps } = config
  const perEpoch = examples === undefined ? undefined : Math.ceil(examples / (batch * accumulation))
  const steps =
    maxSteps > 0 ? maxSteps : perEpoch === undefined ? undefined : Math.ceil(config.numTrainEpochs * perEpoch)
  const size = sizeOf({ batch: Math.min(batch, examples ?? batch), length: maxLength }, 1)
  return {
    steps,
    sample: [Array.from({ length: accumulation }, () => size)],
    longest: maxLength,
    examples,
    tokens: examples === undefined ? undefined : examples * maxLength,
    workload: (run, extent) => ({
      training: extent === undefined ? size : sizeOf(extent, 1),
      evaluation: undefined,
      microBatches: accumulation,
      stateBytes: (name, count) => stateBytes(name, count, run),
      keepsBest: run.loadBestModelAtEnd,
      data: (examples ?? 0) * (4 * maxLength + 32),
    }),
  }
}

function sizeOf({ batch, length }: Extent, labelShare: number): BatchSize {
  return { batch, seq: length, rows: Math.max(1, Math.ceil(batch * (length - 1) * labelShare)), masks: 1 }
}
