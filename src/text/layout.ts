import { type Example, lengthOf } from './example.ts'
import { type PrefixOptions, sharedRows } from './prefixes.ts'
import {
  alone,
  type Limits,
  longRows,
  microBatchCost,
  type Padding,
  passCost,
  type Placed,
  type Row,
  rowsCost,
  rowsWithin,
  tokensOf,
  widthFor,
} from './row.ts'

export interface LayoutOptions extends PrefixOptions {
  /** Most examples of a micro-batch that is not packed. */
  readonly batchSize: number
  /** Whether several examples may share a row. */
  readonly packing?: boolean | undefined
  /** Whether what examples begin with in common is computed once, where that costs less; not by default. */
  readonly sharePrefixes?: boolean | undefined
}

/** A row and the tokens that it computes. */
interface Laid {
  readonly row: Row
  readonly tokens: number
}

/**
 * A step whose beginnings are shared must cost less than so much of what it costs without: what differs by less is left as it is, also since
 * the model of costs is no better.
 */
const worthwhile = 0.97

/**
 * Examples in micro-batches, the largest first, laid out so that computing them costs least. `longest`: tokens of the longest example of the
 * data, which bounds how long rows and how large micro-batches become.
 */
export function layOut(examples: readonly Example[], longest: number, options: LayoutOptions): Row[][] {
  const sorted = examples.toSorted((a, b) => lengthOf(b) - lengthOf(a))
  const limits = { batchSize: options.batchSize, widest: widthFor(longest, options) }
  const arranged = (rows: readonly Row[]): Row[][] => {
    const laid = rows.map((row) => ({ row, tokens: tokensOf(row) }))
    return options.packing === true ? packed(laid, limits, options) : sideBySide(laid, limits, options)
  }
  const separate = arranged(sorted.map((example) => [alone(example)]))
  const rows = options.sharePrefixes === true ? sharedRows(sorted, limits, options) : undefined
  if (rows === undefined) return separate
  const shared = arranged(rows.toSorted((a, b) => tokensOf(b) - tokensOf(a)))
  return costOf(shared, options) < worthwhile * costOf(separate, options) ? shared : separate
}

function costOf(batches: readonly (readonly Row[])[], padding: Padding): number {
  return batches.reduce((total, rows) => {
    const seq = widthFor(Math.max(...rows.map(tokensOf)), padding)
    return total + microBatchCost({ batch: rows.length, seq }, longRows)
  }, 0)
}

/**
 * Rows side by side, in micro-batches of at most `batchSize` cut where the sum of padding and passes is least: for the i longest rows, the
 * best cheapest[i] ends in a micro-batch of sizes[i].
 *
 * Not all sizes of large batches are tried, so that the time grows with the logarithm of `batchSize`.
 */
function sideBySide(sorted: readonly Laid[], limits: Limits, padding: Padding): Row[][] {
  const widths = sorted.map(({ tokens }) => widthFor(tokens, padding))
  const cheapest = [0]
  const sizes = [0]
  for (let end = 1; end <= sorted.length; end++) {
    cheapest[end] = Infinity
    const most = Math.min(limits.batchSize, end)
    for (let size = 1; size <= most; size = sizeAfter(size, most)) {
      const seq = widths[end - size]!
      // More rows would be no narrower.
      if (size > 1 && size > rowsWithin(limits, seq)) break
      const cost = cheapest[end - size]! + microBatchCost({ batch: size, seq })
      if (cost >= cheapest[end]!) continue
      cheapest[end] = cost
      sizes[end] = size
    }
  }
  const groups: Row[][] = []
  for (let end = sorted.length; end > 0; end -= sizes[end]!) {
    groups.push(sorted.slice(end - sizes[end]!, end).map(({ row }) => row))
  }
  return groups.reverse()
}

/** Sizes of micro-batches that are tried one by one; of larger ones, each is a tenth larger than the one before. */
const sizesTried = 64

function sizeAfter(size: number, most: number): number {
  if (size < sizesTried || size === most) return size + 1
  return Math.min(most, size + Math.ceil(size / 10))
}

/** Rows that are packed at a time: what it takes to choose grows faster than their number. */
const packedAtOnce = 256

/**
 * Several rows in one. It is at most as long as the longest example of the data, or as the longest of them.
 *
 * The sorted rows are cut after the first, the second, the fourth and so on where that pays, so that few long ones need not decide how long
 * the rows of all others are; what lies between two cuts is packed together.
 */
function packed(sorted: readonly Laid[], limits: Limits, padding: Padding): Row[][] {
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
        const { rows, perBatch, cost } = bestRows(part, limits, padding)
        if (before.cost + cost >= (best[end]?.cost ?? Infinity)) continue
        best[end] = { cost: before.cost + cost, batches: [...before.batches, ...inBatches(part, rows, perBatch)] }
      }
    }
    batches.push(...(best.at(-1)?.batches ?? []))
  }
  const positions = (batch: Row[]): number => batch.length * Math.max(...batch.map(tokensOf))
  return batches.toSorted((a, b) => positions(b) - positions(a))
}

/** How many rows cost least, how many of them go into a micro-batch, and what all of them cost. */
function bestRows(
  sorted: readonly Laid[],
  limits: Limits,
  padding: Padding,
): { readonly rows: number; readonly perBatch: number; readonly cost: number } {
  const narrowest = widthFor(sorted[0]?.tokens ?? 0, padding)
  const widest = Math.max(limits.widest, narrowest)
  let best = { rows: sorted.length, perBatch: 1, cost: Infinity }
  const first = Math.max(1, Math.ceil(sorted.reduce((total, { tokens }) => total + tokens, 0) / widest))
  for (let rows = first; rows <= sorted.length; rows += Math.ceil(rows / 10)) {
    const width = widthFor(Math.max(...fill(sorted, rows).fills), padding)
    if (width > widest) continue
    const perBatch = rowsWithin(limits, width)
    const cost = Math.ceil(rows / perBatch) * passCost + rowsCost(rows, width)
    if (cost < best.cost) best = { rows, perBatch, cost }
    // More rows would be no shorter.
    if (width === narrowest) break
  }
  if (best.cost < Infinity) return best
  const perBatch = rowsWithin(limits, narrowest)
  const cost = Math.ceil(sorted.length / perBatch) * passCost + rowsCost(sorted.length, narrowest)
  return { rows: sorted.length, perBatch, cost }
}

/**
 * Lays sorted rows into `rows` rows, each into the one with most room left, so that rows end up about equally long: the width of a
 * micro-batch is that of its longest row. Graham 1969, "Bounds on multiprocessing timing anomalies".
 */
function fill(sorted: readonly Laid[], rows: number): { readonly fills: Int32Array; readonly rowOf: Int32Array } {
  const fills = new Int32Array(rows)
  const rowOf = Int32Array.from(sorted, ({ tokens }) => {
    let emptiest = 0
    for (let row = 1; row < rows; row++) if (fills[row]! < fills[emptiest]!) emptiest = row
    fills[emptiest] = fills[emptiest]! + tokens
    return emptiest
  })
  return { fills, rowOf }
}

function inBatches(sorted: readonly Laid[], count: number, perBatch: number): Row[][] {
  const rows: Placed[][] = Array.from({ length: count }, () => [])
  fill(sorted, count).rowOf.forEach((row, i) => rows[row]!.push(...sorted[i]!.row))
  const byLength = rows.toSorted((a, b) => tokensOf(b) - tokensOf(a))
  return Array.from({ length: Math.ceil(count / perBatch) }, (_, i) => byLength.slice(i * perBatch, (i + 1) * perBatch))
}
