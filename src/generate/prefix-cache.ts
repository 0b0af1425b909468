import type { LoadedAdapter } from '../engine/cached/adapters.ts'
import type { KeyValueCache } from '../engine/cached/key-value-cache.ts'

interface Kept {
  readonly ids: Int32Array
  readonly adapter: LoadedAdapter | undefined
  readonly cache: KeyValueCache
}

/** What earlier texts left in their caches, for texts that begin as they did: the next turn of a conversation. An adapter changes keys and values. */
export class PrefixCache {
  readonly #mostBytes: number
  /** Those used last come last. */
  #kept: Kept[] = []

  constructor(mostBytes: number) {
    this.#mostBytes = mostBytes
  }

  /** Keeps a cache of one row with these tokens, and drops what was used longest ago where all take too much. */
  keep(ids: Int32Array, adapter: LoadedAdapter | undefined, cache: KeyValueCache): void {
    this.#kept.push({ ids, adapter, cache })
    let bytes = this.#kept.reduce((total, kept) => total + kept.cache.bytes, 0)
    while (bytes > this.#mostBytes && this.#kept.length > 0) bytes -= this.#kept.shift()?.cache.bytes ?? 0
  }

  /**
   * The cache with the longest beginning of these tokens, which leaves the store; at least one token is left to compute, since its logits
   * are wanted. Undefined where none has a beginning worth it.
   */
  take(
    ids: Int32Array,
    adapter: LoadedAdapter | undefined,
  ): { readonly cache: KeyValueCache; readonly length: number } | undefined {
    let best: { readonly kept: Kept; readonly length: number } | undefined
    for (const kept of this.#kept) {
      if (kept.adapter !== adapter) continue
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

function commonLength(a: Int32Array, b: Int32Array): number {
  const most = Math.min(a.length, b.length)
  let length = 0
  while (length < most && a[length] === b[length]) length++
  return length
}
