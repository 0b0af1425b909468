import { attentionParts } from '../util/attention.ts'
import { type Example, lengthOf } from './example.ts'

/** An example in a row. */
export interface Placed {
  readonly example: Example
  /**
   * How many of its first tokens are those of the example before it in the row, and computed with that one: it continues there. 0 where it
   * begins by itself.
   */
  readonly shared: number
}

/**
 * A row of a micro-batch, at least one example. Examples that share what they begin with are a tree, walked from the root down: each is its
 * beginning, along the examples before it, and its own tokens.
 */
export type Row = readonly Placed[]

/** An example that shares nothing. */
export function alone(example: Example): Placed {
  return { example, shared: 0 }
}

/** Tokens of an example that its row computes for it. */
export function ownTokens({ example, shared }: Placed): number {
  return lengthOf(example) - shared
}

/** Tokens that a row computes. */
export function tokensOf(row: Row): number {
  return row.reduce((total, placed) => total + ownTokens(placed), 0)
}

export interface Padding {
  /** Rows are padded to a multiple of so many positions; 1 by default. */
  readonly padToMultipleOf?: number | undefined
}

/** Positions of a row that computes `tokens` tokens. */
export function widthFor(tokens: number, { padToMultipleOf = 1 }: Padding): number {
  return Math.ceil(Math.max(tokens, attentionParts) / padToMultipleOf) * padToMultipleOf
}

/**
 * What a micro-batch costs besides its positions, in positions: each pass reads all weights again. On SmolLM2-135M and two cores a
 * position takes 3.3 ms, a pass over 1 x 64 of them 390 ms.
 */
export const passCost = 48

/**
 * The length of rows at which attention costs as much as everything else. An estimate from two steps of the same model: a position of
 * 2 x 480 took 1.06 times as long as one of 4 x 256.
 */
const attentionLength = 3600

/** What `rows` rows of this width cost, in positions of a short row. */
export function rowsCost(rows: number, width: number, length = attentionLength): number {
  return rows * width * (1 + width / length)
}

/** What a micro-batch costs beside others, in positions. */
export function microBatchCost(
  { batch, seq }: { readonly batch: number; readonly seq: number },
  length = attentionLength,
): number {
  return passCost + rowsCost(batch, seq, length)
}

/**
 * The same where rows become long, and few positions have labels that go through the head. Processor time a position of three blocks of
 * SmolLM2-135M (LoRA, activations kept), in rows of 342 and of 636, 804, 972, 1,308, 1,644 and 1,980 positions that share the first 300: 0.73 and
 * 0.80, 0.81, 0.92, 1.12, 1.10, 1.25 ms, on a busy machine. What is kept of a row takes memory in about the same proportion.
 */
export const longRows = 1750

/**
 * What a micro-batch may have: no more positions, nor scores of attention, than `batchSize` rows of the longest example, so that no layout takes
 * more memory than the worst micro-batch of one example a row.
 */
export interface Limits {
  readonly batchSize: number
  /** Positions of a row of the longest example. */
  readonly widest: number
}

/** Rows of this width that a micro-batch may have. */
export function rowsWithin({ batchSize, widest }: Limits, width: number): number {
  if (width <= widest) return Math.floor((batchSize * widest) / width)
  return Math.floor((batchSize * widest * widest) / (width * width))
}
