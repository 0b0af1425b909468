import type { LoadedAdapter } from '../engine/cached/adapters.ts'
import type { KeyValueCache } from '../engine/cached/key-value-cache.ts'
import { commonLength } from '../util/vectors.ts'

interface Kept {
  readonly ids: Int32Array
  readonly adapter: LoadedAdapter | undefined
  readonly regime: string
  readonly cache: KeyValueCache
}

/** What keys and values depend on beside the tokens. */
export interface PrefixOf {
  readonly adapter: LoadedAdapter | undefined
  /** How positions are seen: see `CachedDecoder.regime`. */
  readonly regime: string
}

/** What earlier texts left in their caches, for texts that begin as they did: the next turn of a conversation. */
export class PrefixCache {
  readonly #mostBytes: number
  /** Those used last come last. */
  #kept: Kept[] = []

  constructor(mostBytes: number) {
    this.#mostBytes = mostBytes
  }

  /** Keeps a cache of one row with these tokens, and drops what was used longest ago where all take too much. */
  keep(ids: Int32Array, { adapter, regime }: PrefixOf, cache: KeyValueCache): void {
    this.#kept.push({ ids, adapter, regime, cache })
    let bytes = this.#kept.reduce((total, kept) => total + kept.cache.bytes, 0)
    while (bytes > this.#mostBytes && this.#kept.length > 0) bytes -= this.#kept.shift()?.cache.bytes ?? 0
  }

  /**
   * The cache with the longest beginning of these tokens, which leaves the store; at least one token is left to compute, since its logits
   * are wanted. Undefined where none has a beginning worth it.
   */
  take(
    ids: Int32Array,
    { adapter, regime }: PrefixOf,
  ): { readonly cache: KeyValueCache; readonly length: number } | undefined {
    let best: { readonly kept: Kept; readonly length: number } | undefined
    for (const kept of this.#kept) {
      if (kept.adapter !== adapter || kept.regime !== regime) continue
      const length = Math.min(commonLength(kept.ids, ids), ids.length - 1)
      if (length > (best?.length ?? fewestTokens - 1)) best = { kept, length }
    }
    if (best === undefined) return undefined
    const { kept, length } = best
    this.#kept = this.#kept.filter((one) => one !== kept)
    kept.cache.truncate(0, length)
    return { cache: kept.cache, length }
  }
}

/** Shorter beginnings (a BOS, a few words that all texts have) are not worth a cache that another text could go on from. */
const fewestTokens = 8
