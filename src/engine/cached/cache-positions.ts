import { f32Tensor, type Feeds, type HostTensor } from '../onnxruntime/runtime.ts'
import { lowest, type PositionKind, type Rotation } from '../positions.ts'
import type { KeyValueCache } from './key-value-cache.ts'

type Tables = ReturnType<Rotation['tables']>

/** What programs with a cache are fed of positions: the angles of the new ones, and which places of the cache and new ones each sees. */
export class CachePositions {
  /** Query heads that share a key head: each has rows of its own in a mask. */
  readonly #group: number
  /** Angles by what they depend on, grown as they are asked for. */
  readonly #tables = new Map<
    Rotation,
    { readonly regime: number; readonly positions: number; readonly tables: Tables }
  >()

  constructor(group: number) {
    this.#group = group
  }

  /** -> feeds of layers of these kinds, for `seq` new positions in each row. */
  of(cache: KeyValueCache, seq: number, length?: number): (kinds: readonly PositionKind[]) => Feeds {
    const made = new Map<PositionKind, Feeds>()
    return (kinds) => {
      const feeds: Record<string, HostTensor> = {}
      kinds.forEach((kind, number) => {
        const own = made.get(kind) ?? this.#feeds(cache, seq, kind, length)
        made.set(kind, own)
        for (const [name, tensor] of Object.entries(own)) feeds[`${name}.${number}`] = tensor
      })
      return feeds
    }
  }

  #feeds(cache: KeyValueCache, seq: number, { rope, window }: PositionKind, length: number | undefined): Feeds {
    const mask = cacheMask(cache, { seq, window, group: this.#group })
    if (rope === undefined) return { mask }
    const { rows } = cache
    const [cos, sin] = [new Float32Array(rows * seq * rope.width), new Float32Array(rows * seq * rope.width)]
    for (let row = 0; row < rows; row++) {
      const begin = cache.lengthOf(row)
      const tables = this.#tablesOf(rope, begin + seq, length ?? begin + seq)
      cos.set(tables.cos.subarray(begin * rope.width, (begin + seq) * rope.width), row * seq * rope.width)
      sin.set(tables.sin.subarray(begin * rope.width, (begin + seq) * rope.width), row * seq * rope.width)
    }
    const shape = [rows, seq, rope.width]
    return { cos: f32Tensor(cos, shape), sin: f32Tensor(sin, shape), mask }
  }

  #tablesOf(rope: Rotation, positions: number, length: number): Tables {
    const regime = rope.regime?.(length) ?? 0
    const known = this.#tables.get(rope)
    if (known !== undefined && known.regime === regime && known.positions >= positions) return known.tables
    const count = Math.max(positions, known?.regime === regime ? 2 * known.positions : 256)
    const tables = rope.tables(count, length)
    this.#tables.set(rope, { regime, positions: count, tables })
    return tables
  }
}

interface MaskOptions {
  readonly seq: number
  readonly window: number | undefined
  readonly group: number
}

/** 0 where a new position looks at a place of the cache or at a new one, very negative elsewhere, [rows, 1, group * seq, capacity + seq]. */
function cacheMask(cache: KeyValueCache, { seq, window, group }: MaskOptions): HostTensor {
  const { rows, capacity } = cache
  const width = capacity + seq
  const size = seq * width
  const mask = new Float32Array(rows * group * size)
  for (let row = 0; row < rows; row++) {
    const length = cache.lengthOf(row)
    const begin = row * group * size
    for (let t = 0; t < seq; t++) {
      const start = begin + t * width
      // The first position that is seen, and the first of the new ones.
      const first = window === undefined ? 0 : Math.max(0, length + t - window + 1)
      mask.fill(lowest, start, start + Math.min(first, length))
      mask.fill(lowest, start + length, start + capacity + Math.max(0, first - length))
      mask.fill(lowest, start + capacity + t + 1, start + width)
    }
    for (let head = 1; head < group; head++) mask.copyWithin(begin + head * size, begin, begin + size)
  }
  return f32Tensor(mask, [rows, 1, group * seq, width])
}
