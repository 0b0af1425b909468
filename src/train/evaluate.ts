import type { Pipeline } from '../engine/pipeline.ts'
import type { EvalBatches } from '../text/batches.ts'
import { LowrankError } from '../util/errors.ts'
import type { EvalResult } from './events.ts'
import { sumOf } from './step.ts'

/**
 * Loss and accuracy over batches; every label token counts the same. `onBatch` receives the examples done, `onLosses` the losses of the
 * predicted tokens, [rows] of the batch at `index`.
 *
 * @throws LowrankError `cancelled` when `cancelled()` says so between two batches.
 */
export async function evaluateBatches(options: {
  readonly pipeline: Pipeline
  readonly batches: EvalBatches
  readonly onBatch?: (examples: number) => void
  readonly onLosses?: (losses: Float32Array, index: number) => void
  readonly cancelled?: () => boolean
}): Promise<EvalResult> {
  let [lossSum, correct, labelTokens, examples] = [0, 0, 0, 0]
  const { pipeline, batches } = options
  for (let start = 0; start < batches.length; start += pipeline.group) {
    if (options.cancelled?.() === true) throw new LowrankError('cancelled', 'the evaluation was cancelled')
    const group = batches.slice(start, start + pipeline.group)
    const result = await pipeline.evaluate(group)
    for (const [i, losses] of result.losses.entries()) {
      options.onLosses?.(losses, start + i)
      lossSum += sumOf(losses)
    }
    correct += result.correct
    for (const batch of group) {
      labelTokens += batch.targets.length
      examples += batch.examples.length
    }
    options.onBatch?.(examples)
  }
  const loss = lossSum / labelTokens
  return { loss, perplexity: Math.exp(loss), tokenAccuracy: correct / labelTokens, labelTokens, examples }
}
