import type { MicroBatch, Pipeline } from '../engine/pipeline.ts'
import { LowrankError } from '../util/errors.ts'
import type { EvalResult } from './events.ts'

/**
 * Loss and accuracy over batches; every label token counts the same. `onBatch` is told the examples done.
 *
 * @throws LowrankError `cancelled` when `cancelled()` says so between two batches.
 */
export async function evaluateBatches(options: {
  readonly pipeline: Pipeline
  readonly batches: readonly MicroBatch[]
  readonly onBatch?: (examples: number) => void
  readonly cancelled?: () => boolean
}): Promise<EvalResult> {
  let [lossSum, correct, labelTokens, examples] = [0, 0, 0, 0]
  for (const batch of options.batches) {
    if (options.cancelled?.() === true) throw new LowrankError('cancelled', 'the evaluation was cancelled')
    const result = await options.pipeline.evaluate(batch)
    lossSum += result.lossSum
    correct += result.correct
    labelTokens += batch.targets.length
    examples += batch.batch
    options.onBatch?.(examples)
  }
  const loss = lossSum / labelTokens
  return { loss, perplexity: Math.exp(loss), tokenAccuracy: correct / labelTokens, labelTokens, examples }
}
