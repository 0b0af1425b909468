import { shuffled, stream } from '../util/random.ts'
import type { Example } from './examples.ts'

/** Examples side by side, padded on the right with id 0 to the longest of them. */
export interface Batch {
  readonly batch: number
  readonly seq: number
  /** [batch * seq]. Padding needs no mask: attention is causal, and no label lies behind it. */
  readonly ids: Int32Array
  /** Flat positions b * seq + t whose next token is a label, ascending, [labels]. */
  readonly rows: Int32Array
  /** Those next tokens, [labels]. */
  readonly targets: Int32Array
  readonly examples: readonly Example[]
  /** Flat positions at which the examples begin, ascending, [examples]. */
  readonly starts: Int32Array
}

/** What the labels of one example cost. */
export interface ExampleLoss {
  readonly example: Example
  /** Sum over its label tokens, in nats. */
  readonly lossSum: number
  readonly labelTokens: number
}

/** The micro-batches of one optimizer step. */
export interface StepBatches {
  /** Epochs done once this step is done; fractional. */
  readonly epoch: number
  readonly batches: readonly Batch[]
}

export interface TrainingOrder {
  readonly examples: readonly Example[]
  readonly seed: number
  /** Most examples of a micro-batch. */
  readonly batchSize: number
  /** Micro-batches of an optimizer step. */
  readonly accumulation: number
}

/** Attention is computed in as many parts, of at least one position each. */
const minimalWidth = 4

function widthOf(examples: readonly Example[]): number {
  return examples.reduce((longest, { ids }) => Math.max(longest, ids.length), minimalWidth)
}

/** Puts examples (at least one) side by side. */
export function makeBatch(examples: readonly Example[]): Batch {
  const batch = examples.length
  const seq = widthOf(examples)
  const ids = new Int32Array(batch * seq)
  const rows: number[] = []
  const targets: number[] = []
  for (const [b, example] of examples.entries()) {
    ids.set(example.ids, b * seq)
    for (let t = 1; t < example.ids.length; t++) {
      if (example.labelMask[t] !== 1) continue
      rows.push(b * seq + t - 1)
      targets.push(example.ids[t]!)
    }
  }
  const starts = Int32Array.from(examples, (_, b) => b * seq)
  return { batch, seq, ids, rows: Int32Array.from(rows), targets: Int32Array.from(targets), examples, starts }
}

/** Sums the losses [labels] of a batch's rows for each of its examples, in the order of `batch.examples`. */
export function exampleLosses({ examples, starts, rows }: Batch, losses: Float32Array): ExampleLoss[] {
  let row = 0
  return examples.map((example, i) => {
    const end = starts[i + 1] ?? Infinity
    const first = row
    let lossSum = 0
    for (; row < rows.length && rows[row]! < end; row++) lossSum += losses[row]!
    return { example, lossSum, labelTokens: row - first }
  })
}

/** Optimizer steps an epoch takes; the last may have fewer examples, as in transformers. */
export function stepsPerEpoch({ examples, batchSize, accumulation }: Omit<TrainingOrder, 'seed'>): number {
  return Math.ceil(examples.length / (batchSize * accumulation))
}

/**
 * The batches of optimizer step `step` (from 0), a function of its arguments alone, so that any step can be rebuilt
 * without those before it. Each epoch is a new permutation of the examples, and a step takes the next
 * batchSize * accumulation of them.
 *
 * Within the step they are sorted by length before they are split into micro-batches, some of them smaller than
 * `batchSize`, so that little padding is computed. That changes nothing but speed: the loss of a step is the sum over all its label tokens divided by their
 * number, so its gradient does not depend on which examples share a micro-batch. The longest come first, so that
 * memory reaches its peak at the start.
 */
export function stepBatches({
  examples,
  seed,
  step,
  batchSize,
  accumulation,
}: TrainingOrder & { step: number }): StepBatches {
  const steps = stepsPerEpoch({ examples, batchSize, accumulation })
  const epoch = Math.floor(step / steps)
  const start = (step % steps) * batchSize * accumulation
  const order = shuffled(examples.length, stream(seed, 'shuffle', epoch))
  const chosen = order.subarray(start, start + batchSize * accumulation)
  const batches = byLength(
    Array.from(chosen, (i) => examples[i]!),
    batchSize,
  ).map(makeBatch)
  return { epoch: epoch + (start + chosen.length) / examples.length, batches }
}

/** The size of a micro-batch. */
export interface BatchSize {
  readonly batch: number
  readonly seq: number
  /** Positions that predict a label. */
  readonly rows: number
}

/**
 * Of the micro-batches of the first `steps` steps: the size of the one with most positions, with the most labels that any of them has.
 */
export function largestMicroBatch(order: TrainingOrder, steps: number): BatchSize {
  const { examples, seed, batchSize, accumulation } = order
  const perStep = batchSize * accumulation
  const labels = new Map(examples.map((example) => [example, labelsOf(example)]))
  let [left, rows] = [steps, 0]
  let largest = { batch: 0, seq: 0 }
  for (let epoch = 0; left > 0; epoch++) {
    const permutation = shuffled(examples.length, stream(seed, 'shuffle', epoch))
    for (let start = 0; start < examples.length && left > 0; start += perStep, left--) {
      const chosen = Array.from(permutation.subarray(start, start + perStep), (i) => examples[i]!)
      for (const group of byLength(chosen, batchSize)) {
        const size = { batch: group.length, seq: widthOf(group) }
        if (size.batch * size.seq > largest.batch * largest.seq) largest = size
        rows = Math.max(
          rows,
          group.reduce((total, example) => total + labels.get(example)!, 0),
        )
      }
    }
  }
  return { ...largest, rows }
}

function labelsOf({ labelMask }: Example): number {
  let count = 0
  for (let t = 1; t < labelMask.length; t++) count += labelMask[t]!
  return count
}

/** All examples once, in batches of similar length, the longest first. */
export function evalBatches(examples: readonly Example[], batchSize: number): Batch[] {
  return byLength(examples, batchSize).map(makeBatch)
}

/**
 * What a micro-batch costs besides its positions, in positions: each pass reads all weights anew. On SmolLM2-135M and two cores a
 * position takes 3.3 ms, a pass over 1 x 64 of them 390 ms.
 */
const passCost = 48

/**
 * The examples, longest first, in micro-batches of at most `batchSize` cut where the sum of padding and passes is least: for the
 * i longest examples, the best cheapest[i] ends in a micro-batch of sizes[i].
 */
function byLength(examples: readonly Example[], batchSize: number): Example[][] {
  const sorted = examples.toSorted((a, b) => b.ids.length - a.ids.length)
  const cheapest = [0]
  const sizes = [0]
  for (let end = 1; end <= sorted.length; end++) {
    cheapest[end] = Infinity
    for (let size = 1; size <= Math.min(batchSize, end); size++) {
      const longest = sorted[end - size]!.ids.length
      const cost = cheapest[end - size]! + size * longest + passCost
      if (cost >= cheapest[end]!) continue
      cheapest[end] = cost
      sizes[end] = size
    }
  }
  const groups: Example[][] = []
  for (let end = sorted.length; end > 0; end -= sizes[end]!) groups.push(sorted.slice(end - sizes[end]!, end))
  return groups.reverse()
}
