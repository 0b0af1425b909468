import type { FillMask } from '../engine/dropout.ts'
import type { AddNoise, GradientSink, Pipeline } from '../engine/pipeline.ts'
import { stepBatches, type Batch, type BatchSize, type LargestMicroBatch, type TrainingOrder } from '../text/batches.ts'
import { internalError, LowrankError, messageOf } from '../util/errors.ts'
import { isOutOfMemory } from '../util/limits.ts'
import { fillDropoutMask, stream } from '../util/random.ts'
import { addEmbeddingNoise } from './noise.ts'
import type { Trainable } from '../engine/trainable.ts'

export interface StepGradients {
  /** Sum of the losses of all label tokens, in nats. */
  readonly lossSum: number
  readonly labelTokens: number
  /** Positions computed, padding included. */
  readonly tokens: number
  /** Those that are no padding. */
  readonly realTokens: number
}

export interface GradientOptions {
  readonly pipeline: Pipeline
  readonly trainables: ReadonlyMap<string, Trainable>
  readonly batches: readonly Batch[]
  readonly seed: number
  readonly step: number
  /** NEFTune's alpha; no noise by default. */
  readonly noiseAlpha?: number | undefined
  /** Receives the losses of the predicted tokens, [rows] of the micro-batch at `index`. */
  readonly onLosses?: ((losses: Float32Array, index: number) => void) | undefined
  readonly cancelled?: (() => boolean) | undefined
}

/**
 * Adds the gradients of the sum of losses over the micro-batches of one optimizer step to its trainables. Dividing by the label tokens
 * of the whole step comes after, so that how the step is split into micro-batches changes nothing. Dropout masks depend on
 * seed, step and place only, the noise of NEFTune on seed, step and example.
 *
 * @throws LowrankError `cancelled` when `cancelled()` says so between two micro-batches: the gradients are half summed then.
 */
export async function accumulateGradients(options: GradientOptions): Promise<StepGradients> {
  const { pipeline, trainables, batches, seed, step, noiseAlpha, onLosses, cancelled } = options
  const sink = gradientSink(trainables)
  let [lossSum, labelTokens, tokens, realTokens] = [0, 0, 0, 0]
  for (let start = 0; start < batches.length; start += pipeline.group) {
    if (cancelled?.() === true) throw new LowrankError('cancelled', 'cancelled within a step')
    const fillMask: FillMask = (mask, p, { micro, stage, index }) =>
      fillDropoutMask(mask, p, stream(seed, 'dropout', step, start + micro, stage, index))
    const group = batches.slice(start, start + pipeline.group)
    const addNoise: AddNoise | undefined =
      noiseAlpha === undefined
        ? undefined
        : (x, micro) => addEmbeddingNoise(x, group[micro]!, { alpha: noiseAlpha, seed, step })
    for (const [i, losses] of (await pipeline.train(group, { fillMask, addNoise }, sink)).entries()) {
      onLosses?.(losses, start + i)
      lossSum += sumOf(losses)
    }
    for (const batch of group) {
      labelTokens += batch.targets.length
      tokens += batch.batch * batch.seq
      realTokens += batch.realTokens
    }
  }
  return { lossSum, labelTokens, tokens, realTokens }
}

/** A sum in f64. */
export function sumOf(values: Float32Array): number {
  return values.reduce((total, value) => total + value, 0)
}

/** The largest micro-batch of a run, computed before the first step. */
export interface Trial {
  readonly largest: LargestMicroBatch
  /** What takes less memory, in words. */
  readonly smaller: readonly string[]
}

/**
 * Forward and backward of the largest micro-batch (with those it goes through the blocks with), so that a run that needs too much memory
 * fails in its first seconds. Its gradients are thrown away: nothing that the run computes is changed.
 *
 * @throws LowrankError `memory`: what was tried and what takes less.
 */
export async function tryLargest(options: {
  readonly pipeline: Pipeline
  readonly trainables: ReadonlyMap<string, Trainable>
  readonly order: TrainingOrder
  readonly trial: Trial
  readonly cancelled?: (() => boolean) | undefined
}): Promise<void> {
  const { pipeline, trainables, order, trial, cancelled } = options
  const { step, index, size } = trial.largest
  const { batches } = stepBatches({ ...order, step })
  const first = index - (index % pipeline.group)
  const group = batches.slice(first, first + pipeline.group)
  try {
    // Steps count from 1, so that no dropout mask of a step is drawn.
    const parts = { pipeline, trainables, batches: group, seed: order.seed, step: 0 }
    await accumulateGradients({ ...parts, cancelled })
  } catch (cause) {
    if (!isOutOfMemory(cause)) throw cause
    throw new LowrankError(
      'memory',
      `the largest micro-batch of this run, ${sizeText(size)}, was tried first and does not fit into memory: ${messageOf(cause)}`,
      { hint: `What takes less: ${trial.smaller.join('; ')}.`, cause },
    )
  } finally {
    for (const { gradient } of trainables.values()) gradient.fill(0)
  }
}

/** `4 x 512 positions`. */
export function sizeText({ batch, seq }: Pick<BatchSize, 'batch' | 'seq'>): string {
  return `${batch} x ${seq} positions`
}

function gradientSink(trainables: ReadonlyMap<string, Trainable>): GradientSink {
  const gradientOf = (name: string): Float32Array => {
    const trainable = trainables.get(name)
    if (trainable === undefined) throw internalError(`a gradient of ${name}, which is not trained`)
    return trainable.gradient
  }
  return {
    add: (name, gradient) => {
      const sum = gradientOf(name)
      for (let i = 0; i < sum.length; i++) sum[i] = sum[i]! + gradient[i]!
    },
    addRows: (name, indices, rows) => {
      const sum = gradientOf(name)
      const width = rows.length / indices.length
      indices.forEach((index, row) => {
        for (let i = 0; i < width; i++) sum[index * width + i] = sum[index * width + i]! + rows[row * width + i]!
      })
    },
  }
}
