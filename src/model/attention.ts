import { b } from '../graph/build.ts'
import { type Dim, product } from '../graph/dims.ts'
import type { Value } from '../graph/value.ts'
import type { Attend, DecoderConfig } from './decoder.ts'

/** The parts in which queries go through attention, and the keys that each may see. */
export interface QueryParts {
  /** How many queries each has. */
  readonly queries: readonly Dim[]
  /** The same as numbers, i64 [parts]. */
  readonly sizes: Value
  /** Of keys or values of all positions, axis 2, those that each part may see. */
  readonly seen: (all: Value) => readonly Value[]
  /**
   * Added to the scores of each: 0 where a query may look, very negative elsewhere. One for all rows or one for each, [1|batch, 1, group * queries,
   * keys]: as scores are laid out, which need no reshapes then.
   */
  readonly masks: readonly Value[]
}

/** Attention whose queries go through it in parts, so that early ones skip the late keys. */
export function attendInParts(config: DecoderConfig, { queries: parts, sizes, seen, masks }: QueryParts): Attend {
  return (queries, keys, values) => {
    const [seenKeys, seenValues] = [seen(keys), seen(values)]
    const mixed = b
      .split(queries, sizes, { axis: 3, parts })
      .map((part, i) => attendAll(part, seenKeys[i] ?? keys, seenValues[i] ?? values, masks[i]!, config))
    return b.concat(mixed, sizes, { axis: 3, whole: queries.type.shape[3] ?? 0 })
  }
}

/** Heads of queries that share a head of keys and values. */
export function groupSize({ numAttentionHeads, numKeyValueHeads }: DecoderConfig): number {
  return numAttentionHeads / numKeyValueHeads
}

/** What a layer remembers of earlier positions. */
export interface CacheContext {
  /** Keys, rotated, and values of the places of the cache, [batch, kv heads, past, d] each. */
  readonly past: { readonly keys: Value; readonly values: Value }
  /** How many places the cache has, and how many positions are new, i64 [2]. */
  readonly lengths: Value
  /** Added to the scores of all places and then of the new positions. */
  readonly mask: Value
  /** Is given the keys and values of the new positions, or of all. */
  readonly keep: (keys: Value, values: Value) => void
}

/**
 * Attention over a cache and the new positions behind it, mask [batch, 1, group * seq, total]. The two are joined in their scores only: the
 * cache is never copied. The mask comes as the scores are laid out, since with one new token a reshape takes as long as a small product.
 */
export function attendWithCache(config: DecoderConfig, { past, lengths, mask, keep }: CacheContext): Attend {
  return (queries, keys, values) => {
    keep(keys, values)
    const [batch = 0, kvHeads = 0, group = 0, seq = 0, headDim = 0] = queries.type.shape
    const rows = b.reshape(queries, [batch, kvHeads, product([group, seq]), headDim])
    const [before, total] = [past.keys.type.shape[2] ?? 0, mask.type.shape[3] ?? 0]
    const products = [past.keys, keys].map((some) => scoresOf(rows, some, config))
    const scores = b.concat(products, lengths, { axis: 3, whole: total })
    const weights = b.softmax(b.add(scores, mask))
    const [ofPast = weights, ofNew = weights] = b.split(weights, lengths, { axis: 3, parts: [before, seq] })
    return b.reshape(b.add(b.matmul(ofPast, past.values), b.matmul(ofNew, values)), queries.type.shape)
  }
}

/**
 * Attention over a cache that is joined with the new positions, mask [batch, 1, group * seq, total]: `keep` is given all keys and values, [batch,
 * kv heads, total, d] each, for programs that hold the cache as it was returned.
 */
export function attendWithJoinedCache(config: DecoderConfig, { past, lengths, mask, keep }: CacheContext): Attend {
  const whole = mask.type.shape[3] ?? 0
  const joined = (before: Value, added: Value): Value => b.concat([before, added], lengths, { axis: 2, whole })
  return (queries, keys, values) => {
    const [allKeys, allValues] = [joined(past.keys, keys), joined(past.values, values)]
    keep(allKeys, allValues)
    return attendAll(queries, allKeys, allValues, mask, config)
  }
}

/** Queries [batch, kv heads, group, n, d] over keys and values [batch, kv heads, m, d] -> the shape of the queries. */
function attendAll(queries: Value, keys: Value, values: Value, mask: Value, config: DecoderConfig): Value {
  const [batch = 0, kvHeads = 0, group = 0, n = 0, headDim = 0] = queries.type.shape
  const rows = b.reshape(queries, [batch, kvHeads, product([group, n]), headDim])
  const weights = b.softmax(b.add(scoresOf(rows, keys, config), mask))
  return b.reshape(b.matmul(weights, values), queries.type.shape)
}

/** rows [batch, kv heads, r, d] and keys [batch, kv heads, m, d] -> [batch, kv heads, r, m]. */
function scoresOf(rows: Value, keys: Value, { attentionScale: alpha, scoreCap }: DecoderConfig): Value {
  const products = b.matmul(rows, keys, { transB: true, alpha })
  return scoreCap === undefined ? products : b.softCap(products, scoreCap)
}
