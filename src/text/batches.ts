import { type Example, type Examples, labelsOf, lengthOf } from './example.ts'
import { layOut, type LayoutOptions } from './layout.ts'
import { epochOrder } from './order.ts'
import { alone, longRows, microBatchCost, type Padding, type Row, tokensOf, widthFor } from './row.ts'

/** Rows of equal length, padded on the right with id 0: each one example or several, packed or with a beginning in common. */
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
  /** Flat positions at which the own tokens of the examples begin, ascending, [examples]. Each row begins with one. */
  readonly starts: Int32Array
  /** How many tokens each of them has, those included that it shares. */
  readonly lengths: Int32Array
  /** How many of its first tokens each shares with the one before it in its row: they are computed there. */
  readonly shared: Int32Array
  /** Positions that are no padding. */
  readonly realTokens: number
}

/** What the labels of one example cost. */
interface ExampleLoss {
  readonly example: Example
  /** Sum over its label tokens, in nats. */
  readonly lossSum: number
  readonly labelTokens: number
}

/** The micro-batches of one optimizer step. */
interface StepBatches {
  /** Epochs done once this step is done; fractional. */
  readonly epoch: number
  readonly batches: readonly Batch[]
}

export interface TrainingOrder extends LayoutOptions {
  readonly examples: Examples
  readonly seed: number
  /** A step takes `batchSize` examples for each of so many micro-batches. */
  readonly accumulation: number
  /** Whether a step takes examples of similar length. */
  readonly groupByLength?: boolean | undefined
}

/** Puts examples (at least one) side by side. */
export function makeBatch(examples: readonly Example[]): Batch {
  return batchOf(
    examples.map((example) => [example]),
    {},
  )
}

/** Puts rows of examples that share nothing below each other (at least one, none empty). */
export function batchOf(lines: readonly (readonly Example[])[], padding: Padding): Batch {
  return batchOfRows(
    lines.map((line) => line.map(alone)),
    padding,
  )
}

/** Puts rows (at least one, none empty) below each other. No label is predicted from the example before its own. */
export function batchOfRows(lines: readonly Row[], padding: Padding): Batch {
  const batch = lines.length
  const seq = rowWidth(lines, padding)
  const ids = new Int32Array(batch * seq)
  const rows: number[] = []
  const targets: number[] = []
  const starts: number[] = []
  let realTokens = 0
  for (const [b, line] of lines.entries()) {
    let start = b * seq
    for (const { example, shared } of line) {
      const { ids: tokens, labelMask } = example
      starts.push(start)
      ids.set(shared === 0 ? tokens : tokens.subarray(shared), start)
      for (let t = shared + 1; t < tokens.length; t++) {
        if (labelMask[t] !== 1) continue
        rows.push(start + t - shared - 1)
        targets.push(tokens[t]!)
      }
      start += tokens.length - shared
      realTokens += tokens.length - shared
    }
  }
  const positions = { ids, rows: Int32Array.from(rows), targets: Int32Array.from(targets) }
  const placed = lines.flat()
  const examples = placed.map(({ example }) => example)
  const lengths = Int32Array.from(examples, lengthOf)
  const shared = Int32Array.from(placed, (one) => one.shared)
  return { batch, seq, ...positions, examples, starts: Int32Array.from(starts), lengths, shared, realTokens }
}

function rowWidth(lines: readonly Row[], padding: Padding): number {
  return widthFor(
    lines.reduce((most, line) => Math.max(most, tokensOf(line)), 0),
    padding,
  )
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
export function stepsPerEpoch({
  examples,
  batchSize,
  accumulation,
}: Pick<TrainingOrder, 'examples' | 'batchSize' | 'accumulation'>): number {
  return Math.ceil(examples.length / (batchSize * accumulation))
}

/** The examples of optimizer step `step` (from 0), and the epochs done with it. */
function stepExamples(order: TrainingOrder, step: number): { readonly chosen: Example[]; readonly epoch: number } {
  const { examples, seed, batchSize, accumulation, groupByLength = false } = order
  const perStep = batchSize * accumulation
  const steps = stepsPerEpoch(order)
  const epoch = Math.floor(step / steps)
  const start = (step % steps) * perStep
  const indices = epochOrder({ examples, seed, perStep, groupByLength }, epoch).subarray(start, start + perStep)
  return {
    chosen: Array.from(indices, (i) => examples.at(i)!),
    epoch: epoch + (start + indices.length) / examples.length,
  }
}

/**
 * The batches of optimizer step `step` (from 0), a function of its arguments alone, so that any step can be rebuilt
 * without those before it. Each epoch is a new permutation of the examples, and a step takes the next
 * batchSize * accumulation of them.
 *
 * Within the step they are laid out so that little padding is computed (`layOut`): sorted by length, in micro-batches some of which are
 * smaller than `batchSize`, or packed. That changes nothing but speed: the loss of a step is the sum over all its label tokens divided by
 * their number, so its gradient does not depend on which examples share a micro-batch or a row. The largest come first, so that memory
 * reaches its peak at the start.
 */
export function stepBatches({ step, ...order }: TrainingOrder & { readonly step: number }): StepBatches {
  const { chosen, epoch } = stepExamples(order, step)
  const batches = layOut(chosen, longestOf(order.examples), order).map((rows) => batchOfRows(rows, order))
  return { epoch, batches }
}

/** The sizes of the micro-batches of a step. */
export function stepShapes({ step, ...order }: TrainingOrder & { readonly step: number }): BatchSize[] {
  const { chosen } = stepExamples(order, step)
  return layOut(chosen, longestOf(order.examples), order).map((rows) => sizeOf(rows, order))
}

const knownLongest = new WeakMap<Examples, number>()

/** Tokens of the longest example. */
export function longestOf(examples: Examples): number {
  let longest = knownLongest.get(examples)
  if (longest === undefined) {
    longest = 0
    for (let i = 0; i < examples.length; i++) longest = Math.max(longest, lengthOf(examples.at(i)!))
    knownLongest.set(examples, longest)
  }
  return longest
}

/** The size of a micro-batch. */
export interface BatchSize {
  readonly batch: number
  readonly seq: number
  /** Positions that predict a label. */
  readonly rows: number
  /** Attention masks: one for each row where examples are packed, one (the default) for all where they are not. */
  readonly masks?: number
  /** Whether examples share what they begin with: such micro-batches have programs of their own. */
  readonly trees?: boolean
}

/** The largest micro-batch of a run or an evaluation, with the most labels that any has. */
export interface LargestSize extends BatchSize {
  /**
   * Another that may take more memory: where some micro-batches are trees and some are not, the largest of the other kind; else the one with
   * most scores of attention.
   */
  readonly other?: BatchSize | undefined
}

/** The largest micro-batch of a run. */
export interface LargestMicroBatch {
  readonly size: LargestSize
  /** The step (from 0) it belongs to, and which of the step's micro-batches it is. */
  readonly step: number
  readonly index: number
  /** Most micro-batches of a step. */
  readonly microBatches: number
  /** How many labels micro-batches have: each number once. */
  readonly labelCounts: readonly number[]
}

/** Examples that are laid out to find the largest micro-batch, about a second's work: all of a long run would keep it waiting. */
const mostTried = { plain: 400_000, packed: 50_000 }

/** Of the micro-batches of the first `steps` steps, or of as many as `mostTried` examples make, the largest. */
export function largestMicroBatch(order: TrainingOrder, steps: number): LargestMicroBatch {
  const longest = longestOf(order.examples)
  const perStep = Math.min(order.batchSize * order.accumulation, order.examples.length)
  const most = order.packing === true ? mostTried.packed : mostTried.plain
  const tried = Math.min(steps, Math.ceil(most / perStep))
  let microBatches = 1
  const labels = new Set<number>()
  const search = new LargestSearch<{ readonly step: number; readonly index: number }>()
  for (let step = 0; step < tried; step++) {
    const batches = layOut(stepExamples(order, step).chosen, longest, order)
    microBatches = Math.max(microBatches, batches.length)
    for (const [index, lines] of batches.entries()) {
      const size = sizeOf(lines, order)
      labels.add(size.rows)
      search.add(size, { step, index })
    }
  }
  const { size, place = { step: 0, index: 0 } } = search.found()
  return { size, ...place, microBatches, labelCounts: [...labels] }
}

/** The size of the largest batch. */
function largestOf(layout: readonly (readonly Row[])[], padding: Padding): LargestSize {
  const search = new LargestSearch<number>()
  for (const [index, lines] of layout.entries()) search.add(sizeOf(lines, padding), index)
  return search.found().size
}

interface Candidate<P> {
  readonly size: Required<BatchSize>
  readonly place: P | undefined
  readonly weight: number
}

const smallest: Required<BatchSize> = { batch: 1, seq: 1, masks: 1, rows: 1, trees: false }

/** Scores of a head of attention. */
function scoresOf({ batch, seq }: BatchSize): number {
  return batch * seq ** 2
}

/**
 * Looks for the largest micro-batch: the one that costs most. Where rows share what they begin with, it is the one that takes most memory, since
 * such rows may be long and few.
 */
class LargestSearch<P> {
  #costliest: Candidate<P> = { size: smallest, place: undefined, weight: 0 }
  #mostScores = smallest
  readonly #heaviest = new Map<boolean, Candidate<P>>()
  #rows = 1

  add(size: Required<BatchSize>, place: P): void {
    this.#rows = Math.max(this.#rows, size.rows)
    const [cost, weight] = [microBatchCost(size), microBatchCost(size, longRows)]
    if (scoresOf(size) > scoresOf(this.#mostScores)) this.#mostScores = size
    if (cost > this.#costliest.weight) this.#costliest = { size, place, weight: cost }
    if (weight > (this.#heaviest.get(size.trees)?.weight ?? 0)) this.#heaviest.set(size.trees, { size, place, weight })
  }

  found(): { readonly size: LargestSize; readonly place: P | undefined } {
    const rows = this.#rows
    const [trees, others] = [this.#heaviest.get(true), this.#heaviest.get(false)]
    if (trees === undefined) {
      const { size, place } = this.#costliest
      const most = this.#mostScores
      return { size: { ...size, rows, other: scoresOf(most) > scoresOf(size) ? { ...most, rows } : undefined }, place }
    }
    const [largest, other] = others !== undefined && others.weight > trees.weight ? [others, trees] : [trees, others]
    return { size: { ...largest.size, rows, other: other && { ...other.size, rows } }, place: largest.place }
  }
}

function sizeOf(lines: readonly Row[], padding: Padding): Required<BatchSize> {
  const placed = lines.flat()
  const rows = placed.reduce((total, { example }) => total + labelsOf(example), 0)
  const [batch, seq] = [lines.length, rowWidth(lines, padding)]
  const trees = placed.some(({ shared }) => shared > 0)
  return { batch, seq, rows, masks: placed.length > batch ? batch : 1, trees }
}

/** The batches of an evaluation. Each is made when it is computed: together they would be a second copy of the data. */
export interface EvalBatches {
  readonly length: number
  /** Some of them, as of an array. */
  slice(start?: number, end?: number): readonly Batch[]
}

/** All examples once, in batches of similar length, the largest first; and the size of the largest. */
export function evalBatches(
  examples: Examples,
  batchSize: number,
  options: Omit<LayoutOptions, 'batchSize'> = {},
): EvalBatches & { readonly largest: LargestSize } {
  const layout = layOut(examples.slice(), longestOf(examples), { ...options, batchSize })
  return {
    length: layout.length,
    slice: (start, end) => layout.slice(start, end).map((rows) => batchOfRows(rows, options)),
    largest: largestOf(layout, options),
  }
}
