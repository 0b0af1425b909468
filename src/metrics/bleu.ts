import { gramsOf } from './rouge.ts'

/** A text beside the one that was expected. */
export interface Translation {
  readonly expected: string
  readonly completion: string
}

/** Lengths of the runs of words that are compared. */
const orders = [1, 2, 3, 4] as const

/**
 * BLEU of a corpus, from 0 to 100 (Papineni et al. 2002), with one reference for each text. As `sacrebleu.corpus_bleu` with its defaults:
 * tokens of mteval-v13a, cases kept, orders 1 to 4, and where an order has no match, half of the least precision there could be, a quarter for
 * the next (`exp`). `effectiveOrder`: only the orders that a short text has, as `sacrebleu.sentence_bleu`, for texts by themselves.
 */
export function bleu(
  corpus: readonly Translation[],
  { effectiveOrder = false }: { readonly effectiveOrder?: boolean } = {},
): number {
  const sums = { made: 0, expected: 0, matches: [0, 0, 0, 0], grams: [0, 0, 0, 0] }
  for (const { expected, completion } of corpus) {
    const [reference, made] = [tokensOf(expected), tokensOf(completion)]
    sums.made += made.length
    sums.expected += reference.length
    for (const [i, order] of orders.entries()) {
      const wanted = gramsOf(reference, order)
      for (const [gram, times] of gramsOf(made, order)) {
        sums.matches[i]! += Math.min(times, wanted.get(gram) ?? 0)
        sums.grams[i]! += times
      }
    }
  }
  if (sums.matches.every((count) => count === 0)) return 0
  const precisions: number[] = []
  let smoothing = 1
  for (const [i, grams] of sums.grams.entries()) {
    if (grams === 0) break
    const matches = sums.matches[i]!
    if (matches === 0) smoothing *= 2
    precisions.push(matches === 0 ? 1 / (smoothing * grams) : matches / grams)
  }
  // A corpus without one run of four words has no precision of them.
  if (precisions.length < orders.length && !effectiveOrder) return 0
  const mean = precisions.reduce((total, precision) => total + Math.log(precision), 0) / precisions.length
  const brevity = sums.made < sums.expected ? Math.exp(1 - sums.expected / sums.made) : 1
  return 100 * brevity * Math.exp(mean)
}

/** What counts as white space to Python. */
const blank = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000'
const blanks = new RegExp(`[${blank}]+`)
const blanksAtEnd = new RegExp(`[${blank}]+$`)

const entities = { '&quot;': '"', '&amp;': '&', '&lt;': '<', '&gt;': '>' } as const

/** Tokens of mteval-v13a, the script by which WMT measures: marks stand alone, but for points and commas within numbers. */
function tokensOf(text: string): readonly string[] {
  let line = text.replace(blanksAtEnd, '').replaceAll('<skipped>', '').replaceAll('-\n', '').replaceAll('\n', ' ')
  // One after the other: "&amp;lt;" ends as "<".
  for (const [entity, mark] of Object.entries(entities)) line = line.replaceAll(entity, mark)
  return ` ${line} `
    .replace(/([{-~[-` -&(-+:-@/])/gu, ' $1 ')
    .replace(/([^0-9])([.,])/gu, '$1 $2 ')
    .replace(/([.,])([^0-9])/gu, ' $1 $2')
    .replace(/([0-9])(-)/gu, '$1 $2 ')
    .split(blanks)
    .filter((token) => token !== '')
}
