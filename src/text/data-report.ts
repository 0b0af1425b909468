import type { Dataset } from './dataset.ts'
import { lengthOf } from './example.ts'
import type { Finding } from './findings.ts'
import type { PrefixSavings } from './savings.ts'

/** How many examples have from `from` to `to` tokens. */
export interface LengthBin {
  readonly from: number
  readonly to: number
  readonly count: number
}

/** What data is, before anything is learned of it. */
export interface DataReport {
  /** As it was named. */
  readonly data: string
  readonly shape: string
  /** Where the template is from that writes its conversations, if there are any. */
  readonly template: string | undefined
  readonly examples: number
  /** Malformed records, and what is wrong with the first ones. */
  readonly malformed: number
  readonly problems: readonly string[]
  /** Examples cut to maxLength, and those of which no label is left. */
  readonly truncated: number
  readonly dropped: number
  readonly tokens: number
  readonly labelTokens: number
  /** Tokens an example. */
  readonly lengths: { readonly median: number; readonly p90: number; readonly p99: number; readonly longest: number }
  readonly histogram: readonly LengthBin[]
  /** What is saved where examples of a step begin alike (`sharePrefixes`); where that was asked for. */
  readonly prefixes?: PrefixSavings | undefined
  readonly findings: readonly Finding[]
}

/** What there is to say of a dataset; `template`: where that of its conversations is from. */
export function reportOf(
  data: string,
  { examples, summary, problems }: Dataset,
  template: string | undefined,
): DataReport {
  const lengths = new Uint32Array(examples.length)
  for (let i = 0; i < lengths.length; i++) lengths[i] = lengthOf(examples.at(i)!)
  lengths.sort()
  const at = (share: number): number => lengths[Math.min(lengths.length - 1, Math.floor(share * lengths.length))]!
  const { shape, truncated, dropped, tokens, labelTokens, findings } = summary
  return {
    data,
    shape,
    template: /messages|conversations|alpaca/.test(shape) ? template : undefined,
    examples: examples.length,
    malformed: summary.skippedLines,
    problems,
    truncated,
    dropped,
    tokens,
    labelTokens,
    lengths: { median: at(0.5), p90: at(0.9), p99: at(0.99), longest: lengths.at(-1)! },
    histogram: histogramOf(lengths),
    findings,
  }
}

/** Widths of which people think: 1, 2 or 5 times a power of ten; about twelve bins. */
function histogramOf(sorted: Uint32Array): LengthBin[] {
  const longest = sorted.at(-1)!
  const wanted = Math.max(1, longest / 12)
  const power = 10 ** Math.floor(Math.log10(wanted))
  const width = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= wanted)!
  const bins = Array.from({ length: Math.floor(longest / width) + 1 }, (_, i) => ({
    from: i * width,
    to: (i + 1) * width - 1,
    count: 0,
  }))
  for (const length of sorted) bins[Math.floor(length / width)]!.count++
  const first = bins.findIndex(({ count }) => count > 0)
  return bins.slice(first)
}
