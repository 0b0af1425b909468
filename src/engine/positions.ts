import { internalError } from '../util/errors.ts'
import { fillUnseen, gapBefore, isTree, type Path, pathsOf, type Positions, queriesOf } from './paths.ts'
import { f32Tensor, type Feeds, type HostTensor } from './onnxruntime/runtime.ts'

/** How a block sees positions. */
export interface PositionKind {
  readonly rope: Rotation | undefined
  /** Positions that one sees, itself included; undefined: all up to itself. */
  readonly window: number | undefined
}

/** Rotary embedding: cos and sin [positions, width] for the first positions of an example of `length` tokens. */
export interface Rotation {
  readonly width: number
  readonly tables: (positions: number, length: number) => { readonly cos: Float32Array; readonly sin: Float32Array }
  /** Where the tables differ with the length: lengths of one number have the same. */
  readonly regime?: ((length: number) => number) | undefined
  /** Whether keys of one regime are of no use in another, so that a text which grows into it is computed again. */
  readonly restarts?: boolean | undefined
}

/** Parts in which queries go through attention, where rows are no trees and where they are; no sequence may be shorter. */
export interface AttentionParts {
  readonly rows: number
  readonly trees: number
}

/** The lowest f32, as transformers masks: minus infinity would make a fully masked row NaN. */
export const lowest = -3.4028234663852886e38

/**
 * What a block of this kind is fed of the positions in a micro-batch: `cos` and `sin` of each, counted from where its example begins, and
 * the masks of attention in parts. Where rows hold one example each, they share a causal mask; where several, each row has one that
 * lets a position see its own example alone, along the path of what it shares with others.
 */
export function positionFeeds(positions: Positions, kind: PositionKind, parts: AttentionParts): Feeds {
  const { seq } = positions
  const { rope, window = seq } = kind
  const paths = pathsOf(positions)
  const attention = isTree(positions)
    ? treeFeeds(paths, { seq, window, parts: parts.trees })
    : attentionFeeds(paths, { seq, window, parts: parts.rows })
  return { ...(rope && rotaryFeeds(positions, rope)), ...attention }
}

function rotaryFeeds({ batch, seq, starts, lengths, shared }: Positions, { width, tables, regime }: Rotation): Feeds {
  const [cos, sin] = [new Float32Array(batch * seq * width), new Float32Array(batch * seq * width)]
  const common = regime === undefined ? tables(seq, seq) : undefined
  starts.forEach((start, i) => {
    // Padding counts on from the last example of its row: nothing is predicted from it, and nothing sees it.
    const first = shared?.[i] ?? 0
    const end = first + (starts[i + 1] ?? batch * seq) - start
    const own = common ?? tables(end, lengths[i] ?? end)
    cos.set(own.cos.subarray(first * width, end * width), start * width)
    sin.set(own.sin.subarray(first * width, end * width), start * width)
  })
  const shape = [batch, seq, width]
  return { cos: f32Tensor(cos, shape), sin: f32Tensor(sin, shape) }
}

/**
 * Lengths and masks of the parts in which `seq` queries go through attention. A query sees the last `window` positions of its path, up to
 * itself.
 */
function attentionFeeds(
  rows: readonly (readonly Path[])[],
  { seq, window, parts }: { readonly seq: number; readonly window: number; readonly parts: number },
): Feeds {
  const feeds: Record<string, HostTensor> = {}
  const ends = endsOf(seq, parts)
  ends.forEach((end, i) => {
    const start = ends[i - 1] ?? 0
    const mask = new Float32Array(rows.length * (end - start) * end)
    let at = 0
    for (const path of rows.flat()) {
      for (const { query, first } of queriesOf(path, { start, end, window })) {
        fillUnseen(mask.subarray(at, (at += end)), path, query, first, lowest)
      }
    }
    feeds[`mask.${i}`] = f32Tensor(mask, [rows.length, 1, end - start, end])
    const next = ends[i + 1]
    if (next !== undefined) feeds[`cut.${i}`] = idTensor(Int32Array.of(end, next - end))
  })
  return { ...feeds, sizes: sizesOf(ends) }
}

/** The same of rows that are trees: a part has no keys of the longest gap before it that none of its queries sees. */
function treeFeeds(
  rows: readonly (readonly Path[])[],
  { seq, window, parts }: { readonly seq: number; readonly window: number; readonly parts: number },
): Feeds {
  const feeds: Record<string, HostTensor> = {}
  const ends = endsOf(seq, parts)
  ends.forEach((end, i) => {
    const start = ends[i - 1] ?? 0
    const gap = gapBefore(rows, { start, end, window })
    const keys = end - (gap.end - gap.start)
    const mask = new Float32Array(rows.length * (end - start) * keys)
    const whole = new Float32Array(end)
    let at = 0
    for (const path of rows.flat()) {
      for (const { query, first } of queriesOf(path, { start, end, window })) {
        fillUnseen(whole.fill(0), path, query, first, lowest)
        mask.set(whole.subarray(0, gap.start), at)
        mask.set(whole.subarray(gap.end), at + gap.start)
        at += keys
      }
    }
    feeds[`mask.${i}`] = f32Tensor(mask, [rows.length, 1, end - start, keys])
    feeds[`cut.${i}`] = idTensor(Int32Array.of(gap.start, gap.end - gap.start, end - gap.end, seq - end))
    feeds[`seen.${i}`] = idTensor(Int32Array.of(gap.start, end - gap.end))
  })
  return { ...feeds, sizes: sizesOf(ends) }
}

/** Where each of so many parts ends. */
function endsOf(seq: number, parts: number): number[] {
  if (seq < parts) throw internalError(`a sequence of ${seq} cannot be cut into ${parts} parts`)
  return Array.from({ length: parts }, (_, i) => Math.floor(((i + 1) * seq) / parts))
}

function sizesOf(ends: readonly number[]): HostTensor {
  return idTensor(Int32Array.from(ends, (end, i) => end - (ends[i - 1] ?? 0)))
}

/** Ids or positions [n] as the i64 that ONNX indexes with. */
export function idTensor(ids: Int32Array): HostTensor {
  return { dtype: 'i64', shape: [ids.length], data: BigInt64Array.from(ids, BigInt) }
}
