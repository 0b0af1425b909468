import type { Example, Examples } from './example.ts'
import type { Finding } from './findings.ts'
import { type Place, placeText } from './readers/index.ts'
import type { Sample } from './shapes/index.ts'

/** What a dataset became: counted, so that nothing disappears in silence. */
export interface DatasetSummary {
  /** Its file, or several with commas between. */
  readonly path: string
  /** The shapes of its files. */
  readonly shape: string
  /** Examples kept. */
  readonly examples: number
  /** Tokens of the kept examples, and how many of them carry a label. */
  readonly tokens: number
  readonly labelTokens: number
  /** Examples cut to `maxLength`. */
  readonly truncated: number
  /** Examples left without a label after cutting. */
  readonly dropped: number
  /** Malformed records passed over (`skipBadLines`). */
  readonly skippedLines: number
  /** What is worth looking at. */
  readonly findings: readonly Finding[]
  /** Whether its tokens are in a file, and not in memory. */
  readonly onDisk?: boolean
}

/** A dataset, tokenized. */
export interface Dataset {
  readonly examples: Examples
  /** Which of them are of each file, in the order of the files, and what its records are numbered by. */
  readonly runs: readonly {
    readonly first: number
    readonly length: number
    readonly unit?: Place['unit'] | undefined
  }[]
  readonly summary: DatasetSummary
  /** What is wrong with the first records that were passed over. */
  readonly problems: readonly string[]
  /** A number for the text of each example, the same where the texts are. */
  readonly fingerprints: Float64Array
  /** What each example was made of, where that was to be kept; undefined for those that were cut. */
  readonly samples?: readonly (Sample | undefined)[] | undefined
  /** SHA-256 of each file that was read, as hex, by its path: where that is known already. */
  readonly hashes?: ReadonlyMap<string, string> | undefined
}

/** Where an example is from: `data.jsonl:12`; `data.parquet, row 12`. */
export function placeOf({ line, unit = 'line', path }: Example, summary: Pick<DatasetSummary, 'path'>): string {
  return placeText({ path: path ?? summary.path, unit, number: line })
}

/** Bytes that examples take in memory: what says where they are, and their ids where they are not in a file. */
export function dataBytes({
  tokens,
  examples,
  onDisk,
}: Pick<DatasetSummary, 'tokens' | 'examples' | 'onDisk'>): number {
  return (onDisk === true ? 0 : 4 * tokens) + 32 * examples
}

/** A sample, and where it is from. */
export interface PlacedSample {
  readonly place: Place
  readonly sample: Sample
}
