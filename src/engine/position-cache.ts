import { isPacked, type Positions } from './paths.ts'
import { type AttentionParts, positionFeeds, type PositionKind } from './positions.ts'
import type { Feeds } from './onnxruntime/runtime.ts'

/** What blocks are fed of positions, made once for each kind of block; and once for all micro-batches that are alike in this. */
export class PositionCache {
  readonly #kinds: readonly PositionKind[]
  readonly #parts: AttentionParts
  /** Those of the last micro-batch, by kind. */
  #last: { readonly batch: number; readonly seq: number; readonly feeds: Map<PositionKind, Feeds> } | undefined

  constructor(kinds: readonly PositionKind[], parts: AttentionParts) {
    this.#kinds = kinds
    this.#parts = parts
  }

  /** The feeds of a block by its number. */
  of(positions: Positions): (block: number) => Feeds {
    const { batch, seq } = positions
    const last = this.#last
    const same = last?.batch === batch && last.seq === seq && !isPacked(positions)
    const feeds = new Map(same ? [...last.feeds].filter(([{ rope }]) => rope?.regime === undefined) : [])
    // Packed rows are all different.
    if (!isPacked(positions)) this.#last = { batch, seq, feeds }
    return (block) => {
      const kind = this.#kinds[block] ?? { rope: undefined, window: undefined }
      const known = feeds.get(kind)
      if (known !== undefined) return known
      const made = positionFeeds(positions, kind, this.#parts)
      feeds.set(kind, made)
      return made
    }
  }
}
