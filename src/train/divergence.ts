import type { Pipeline } from '../engine/pipeline.ts'
import type { EvalBatches } from '../text/batches.ts'
import { LowrankError } from '../util/errors.ts'

/** How a model predicts the label tokens of some data, and how far that is from another one. */
export interface Divergence {
  /** Nats a label token. */
  readonly loss: number
  /** Share of label tokens that have the largest logit. */
  readonly tokenAccuracy: number
  /** Share of label tokens for which both models have the same token first. */
  readonly agreement: number
  /** The largest difference of two logits of the same token in the same place. */
  readonly largestLogitDifference: number
  /** Kullback-Leibler divergence of the predictions from those of the other model, in nats, the mean over the tokens compared. */
  readonly divergence: number
}

/** What a model predicts, kept to be compared with: the first token of each place, and the logits of as many places as there is room for. */
export interface Predictions {
  readonly first: readonly number[]
  readonly logits: readonly Float32Array[]
  readonly labelTokens: number
}

/** Bytes of logits that are kept. */
const mostLogits = 2 ** 28

/**
 * Runs data through a model, and compares what it predicts with `reference`; without one, with itself.
 *
 * @throws LowrankError `cancelled` when `cancelled()` says so between two batches.
 */
export async function diverge(options: {
  readonly pipeline: Pipeline
  readonly batches: EvalBatches
  readonly reference: Predictions | undefined
  readonly cancelled: () => boolean
}): Promise<Divergence & { readonly predictions: Predictions }> {
  const { pipeline, batches, reference, cancelled } = options
  const sums = { loss: 0, correct: 0, same: 0, divergence: 0, largest: 0 }
  const first: number[] = []
  const logits: Float32Array[] = []
  const room = { bytes: reference === undefined ? mostLogits : 0 }
  const addRow = (row: Float32Array, target: number): void => {
    const { sum, best } = normalizer(row)
    const other = reference?.logits[first.length]
    sums.loss += sum - row[target]!
    if (best === target) sums.correct++
    if (reference === undefined || reference.first[first.length] === best) sums.same++
    if (other !== undefined) {
      const { divergence, largest } = between(other, row, sum)
      sums.divergence += divergence
      sums.largest = Math.max(sums.largest, largest)
    }
    first.push(best)
    room.bytes -= row.byteLength
    if (room.bytes >= 0) logits.push(row.slice())
  }
  for (let i = 0; i < batches.length; i++) {
    if (cancelled()) throw new LowrankError('cancelled', 'the comparison was cancelled')
    for (const batch of batches.slice(i, i + 1)) {
      await pipeline.logits(batch, (rows, targets) => {
        const vocabulary = rows.length / targets.length
        targets.forEach((target, row) => addRow(rows.subarray(row * vocabulary, (row + 1) * vocabulary), target))
      })
    }
  }
  const count = first.length
  return {
    loss: sums.loss / count,
    tokenAccuracy: sums.correct / count,
    agreement: sums.same / count,
    largestLogitDifference: sums.largest,
    divergence: reference === undefined ? 0 : sums.divergence / Math.max(1, reference.logits.length),
    predictions: { first, logits, labelTokens: count },
  }
}

/** log sum exp of logits, and the place of the largest. */
function normalizer(row: Float32Array): { readonly sum: number; readonly best: number } {
  let best = 0
  for (let i = 1; i < row.length; i++) if (row[i]! > row[best]!) best = i
  const most = row[best]!
  let sum = 0
  for (let i = 0; i < row.length; i++) sum += Math.exp(row[i]! - most)
  return { sum: most + Math.log(sum), best }
}

/** The divergence of `row`, whose log sum exp is `sum`, from `other`. */
function between(
  other: Float32Array,
  row: Float32Array,
  sum: number,
): { readonly divergence: number; readonly largest: number } {
  const own = normalizer(other).sum
  let [divergence, largest] = [0, 0]
  for (let i = 0; i < row.length; i++) {
    const [a, b] = [other[i]!, row[i]!]
    divergence += Math.exp(a - own) * (a - own - (b - sum))
    largest = Math.max(largest, Math.abs(a - b))
  }
  return { divergence, largest }
}
