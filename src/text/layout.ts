import { attentionParts } from '../util/attention.ts'
import { type Example, lengthOf } from './example.ts'

/** A row holds one example, or several one after the other where they are packed. */
export type Row = readonly Example[]

export interface LayoutOptions {
  /** Most examples of a micro-batch that is not packed. */
  readonly batchSize: number
  /** Whether several examples may share a row. */
  readonly packing?: boolean | undefined
  /** Rows are padded to a multiple of so many positions; 1 by default. */
  readonly padToMultipleOf?: number | undefined
}

/** Positions of a row that holds `tokens` tokens. */
export function widthFor(tokens: number, { padToMultipleOf = 1 }: Pick<LayoutOptions, 'padToMultipleOf'>): number {
  return Math.ceil(Math.max(tokens, attentionParts) / padToMultipleOf) * padToMultipleOf
}

export function tokensOf(row: Row): number {
  return row.reduce((total, example) => total + lengthOf(example), 0)
}

/**
 * What a micro-batch costs besides its positions, in positions: each pass reads all weights again. On SmolLM2-135M and two cores a
 * position takes 3.3 ms, a pass over 1 x 64 of them 390 ms.
 */
const passCost = 48

/**
 * The length of rows at which attention costs as much as everything else. An estimate from two steps of the same model: a position of
 * 2 x 480 took 1.06 times as long as one of 4 x 256.
 */
const attentionLength = 3600

/** What `rows` rows of this width cost, in positions of a short row. */
function rowsCost(rows: number, width: number): number {
  return rows * width * (1 + width / attentionLength)
}

/** What a micro-batch costs beside others, in positions. */
export function microBatchCost({ batch, seq }: { readonly batch: number; readonly seq: number }): number {
  return passCost + rowsCost(batch, seq)
}

/** Examples in micro-batches, the largest first, laid out so that computing them costs least. `longest` bounds rows that are packed. */
export function layOut(examples: readonly Example[], longest: number, options: LayoutOptions): Row[][] {
  const lengths = new Map(examples.map((example) => [example, example.ids.length]))
  const sorted = examples.toSorted((a, b) => lengths.get(b)! - lengths.get(a)!)
  return options.packing === true ? packed(sorted, longest, options) : sideBySide(sorted, options)
}

/**
 * One example a row, in micro-batches of at most `batchSize` cut where the sum of padding and passes is least: for the i longest
 * examples, the best cheapest[i] ends in a micro-batch of sizes[i].
 *
 * Not all sizes of large batches are tried, so that the time grows with the logarithm of `batchSize`.
 */
function sideBySide(sorted: readonly Example[], options: LayoutOptions): Row[][] {
  const widths = sorted.map((example) => widthFor(lengthOf(example), options))
  const cheapest = [0]
  const sizes = [0]
  for (let end = 1; end <= sorted.length; end++) {
    cheapest[end] = Infinity
    const most = Math.min(options.batchSize, end)
    for (let size = 1; size <= most; size = sizeAfter(size, most)) {
      const seq = widths[end - size]!
      const cost = cheapest[end - size]! + microBatchCost({ batch: size, seq })
      if (cost >= cheapest[end]!) continue
      cheapest[end] = cost
      sizes[end] = size
    }
  }
  const groups: Row[][] = []
  for (let end = sorted.length; end > 0; end -= sizes[end]!) {
    groups.push(sorted.slice(end - sizes[end]!, end).map((example) => [example]))
  }
  return groups.reverse()
}

/** Sizes of micro-batches that are tried one by one; of larger ones, each is a tenth larger than the one before. */
const sizesTried = 64

function sizeAfter(size: number, most: number): number {
  if (size < sizesTried || size === most) return size + 1
  return Math.min(most, size + Math.ceil(size / 10))
}

/** Examples that are packed at a time: what it takes to choose grows faster than their number. */
const packedAtOnce = 256

/**
 * Several examples a row. A row is at most as long as the longest example of the data, and a micro-batch has at most as many positions
 * as `batchSize` such rows: packing never takes more memory than the worst micro-batch without.
 *
 * The sorted examples are cut after the first, the second, the fourth and so on where that pays, so that few long examples need not
 * decide how long the rows of all others are; what lies between two cuts is packed together.
 */
function packed(sorted: readonly Example[], longest: number, options: LayoutOptions): Row[][] {
  const widest = widthFor(longest, options)
  const limits = { widest, positions: options.batchSize * widest, options }
  const batches: Row[][] = []
  for (let start = 0; start < sorted.length; start += packedAtOnce) {
    const some = sorted.slice(start, start + packedAtOnce)
    const cuts = [0]
    for (let cut = 1; cut < some.length; cut *= 2) cuts.push(cut)
    cuts.push(some.length)
    const best: { readonly cost: number; readonly batches: readonly Row[][] }[] = [{ cost: 0, batches: [] }]
    for (let end = 1; end < cuts.length; end++) {
      for (let from = 0; from < end; from++) {
        const before = best[from]!
        const part = some.slice(cuts[from], cuts[end])
        const { rows, perBatch, cost } = bestRows(part, limits)
        if (before.cost + cost >= (best[end]?.cost ?? Infinity)) continue
        best[end] = { cost: before.cost + cost, batches: [...before.batches, ...inBatches(part, rows, perBatch)] }
      }
    }
    batches.push(...(best.at(-1)?.batches ?? []))
  }
  const positions = (batch: Row[]): number => batch.length * Math.max(...batch.map(tokensOf))
  return batches.toSorted((a, b) => positions(b) - positions(a))
}

interface Limits {
  readonly widest: number
  /** Most positions of a micro-batch. */
  readonly positions: number
  readonly options: LayoutOptions
}

/** How many rows cost least, how many of them go into a micro-batch, and what all of them cost. */
function bestRows(
  sorted: readonly Example[],
  { widest, positions, options }: Limits,
): { readonly rows: number; readonly perBatch: number; readonly cost: number } {
  const narrowest = widthFor(sorted[0] === undefined ? 0 : lengthOf(sorted[0]), options)
  let best = { rows: sorted.length, perBatch: 1, cost: Infinity }
  const first = Math.max(1, Math.ceil(tokensOf(sorted) / widest))
  for (let rows = first; rows <= sorted.length; rows += Math.ceil(rows / 10)) {
    const width = widthFor(Math.max(...fill(sorted, rows).fills), options)
    if (width > widest) continue
    const perBatch = Math.floor(positions / width)
    const cost = Math.ceil(rows / perBatch) * passCost + rowsCost(rows, width)
    if (cost < best.cost) best = { rows, perBatch, cost }
    // More rows would be no shorter.
    if (width === narrowest) break
  }
  if (best.cost < Infinity) return best
  const perBatch = Math.floor(positions / narrowest)
  const cost = Math.ceil(sorted.length / perBatch) * passCost + rowsCost(sorted.length, narrowest)
  return { rows: sorted.length, perBatch, cost }
}

/**
 * Lays sorted examples into `rows` rows, each into the one with most room left, so that rows end up about equally long: the width of a
 * micro-batch is that of its longest row. Graham 1969, "Bounds on multiprocessing timing anomalies".
 */
function fill(sorted: readonly Example[], rows: number): { readonly fills: Int32Array; readonly rowOf: Int32Array } {
  const fills = new Int32Array(rows)
  const rowOf = Int32Array.from(sorted, (example) => {
    let emptiest = 0
    for (let row = 1; row < rows; row++) if (fills[row]! < fills[emptiest]!) emptiest = row
    fills[emptiest] = fills[emptiest]! + lengthOf(example)
    return emptiest
  })
  return { fills, rowOf }
}

function inBatches(sorted: readonly Example[], count: number, perBatch: number): Row[][] {
  const rows: Example[][] = Array.from({ length: count }, () => [])
  fill(sorted, count).rowOf.forEach((row, i) => rows[row]!.push(sorted[i]!))
  const byLength = rows.toSorted((a, b) => tokensOf(b) - tokensOf(a))
  return Array.from({ length: Math.ceil(count / perBatch) }, (_, i) => byLength.slice(i * perBatch, (i + 1) * perBatch))
}
