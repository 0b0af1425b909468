import type { Example } from './example.ts'
import {
  alone,
  type Limits,
  longRows,
  type Padding,
  type Placed,
  type Row,
  rowsCost,
  rowsWithin,
  widthFor,
} from './row.ts'

/*
 * What examples begin with in common (a system prompt, an instruction, a document that is asked about) is computed once: they become one row, a
 * tree, in which each of them sees its own path only, at the positions that it has by itself. Of keys, values and all that is computed at a
 * position nothing depends on what follows, and the gradients of what follows add up there as they would over copies. So losses and
 * gradients are those of separate rows, up to the order of sums.
 *
 * Only positions that carry no label and predict none are shared: each position of a row predicts at most one label, that of the example
 * which it was computed for.
 */

export interface PrefixOptions extends Padding {
  /** Equal for lengths of examples that see positions alike, of which alone tokens can be shared; all by default. */
  readonly regimeOf?: ((length: number) => string) | undefined
}

/** Fewer tokens than that are not shared: what every text begins with would otherwise make one of all. */
const fewest = 8

/** Examples that are looked at together: of a step mostly all, of an evaluation those of similar length. */
const atOnce = 1024

/** An example with its tokens, which may be read from a file. */
interface Text {
  readonly example: Example
  readonly ids: Int32Array
  readonly regime: string
  /** Of how many of its first tokens none is a label or predicts one. */
  readonly unlabelled: number
}

/**
 * Rows of examples that share what they begin with, and of those that share nothing; undefined where none does. How many go into a row is what
 * costs least: each row computes its beginning again, but its attention costs as much for an example as the row is long. No row is
 * longer than a micro-batch of it alone may be.
 */
export function sharedRows(
  examples: readonly Example[],
  limits: Limits,
  { regimeOf, ...padding }: PrefixOptions,
): Row[] | undefined {
  const rows: Row[] = []
  for (let start = 0; start < examples.length; start += atOnce) {
    const some = examples.slice(start, start + atOnce)
    const texts = some.map((example) => textOf(example, regimeOf))
    const walked = inOrder(texts)
    if (walked.some(({ shared }) => shared > 0)) rows.push(...cheapestRows(walked, limits, padding))
    else rows.push(...some.map((example) => [alone(example)]))
  }
  return rows.length < examples.length ? rows : undefined
}

function textOf(example: Example, regimeOf: PrefixOptions['regimeOf']): Text {
  const { ids, labelMask } = example
  const first = labelMask.indexOf(1, 1)
  // At least its last token is its own.
  const unlabelled = (first < 0 ? ids.length : first) - 1
  return { example, ids, regime: regimeOf?.(ids.length) ?? '', unlabelled }
}

interface Walked extends Placed {
  readonly tokens: number
}

/** Examples in the order of their tokens, where those that begin alike follow each other, with what each shares with the one before it. */
function inOrder(texts: readonly Text[]): Walked[] {
  const sorted = texts.toSorted((a, b) => {
    if (a.regime !== b.regime) return a.regime < b.regime ? -1 : 1
    const at = commonTokens(a.ids, b.ids)
    return (a.ids[at] ?? -1) - (b.ids[at] ?? -1)
  })
  return sorted.map(({ example, ids, regime, unlabelled }, i) => {
    const before = sorted[i - 1]
    const common = before?.regime === regime ? Math.min(commonTokens(before.ids, ids), unlabelled) : 0
    return { example, tokens: ids.length, shared: common < fewest ? 0 : common }
  })
}

function commonTokens(a: Int32Array, b: Int32Array): number {
  const most = Math.min(a.length, b.length)
  let at = 0
  while (at < most && a[at] === b[at]) at++
  return at
}

/** Cuts the walk into rows where the sum of their costs is least: cheapest[end] is that of the examples before `end`, the last row from begins[end] on. */
function cheapestRows(walked: readonly Walked[], limits: Limits, padding: Padding): Row[] {
  const cheapest = [0]
  const begins = [0]
  for (let end = 1; end <= walked.length; end++) {
    cheapest[end] = Infinity
    let continued = 0
    for (let begin = end - 1; begin >= 0; begin--) {
      const { tokens, shared } = walked[begin]!
      const width = widthFor(tokens + continued, padding)
      const isAlone = begin === end - 1
      const cost = cheapest[begin]! + rowsCost(1, width, longRows)
      if (cost < cheapest[end]! && (isAlone || rowsWithin(limits, width) >= 1)) {
        cheapest[end] = cost
        begins[end] = begin
      }
      continued += tokens - shared
      if (shared === 0 || rowsWithin(limits, continued) < 1) break
    }
  }
  const rows: Row[] = []
  for (let end = walked.length; end > 0; end = begins[end]!) {
    const row = walked.slice(begins[end], end)
    rows.push(row.map(({ example, shared }, i) => ({ example, shared: i === 0 ? 0 : shared })))
  }
  return rows.reverse()
}
