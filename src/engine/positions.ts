import { internalError } from '../util/errors.ts'
import { f32Tensor, type Feeds, type HostTensor } from './onnxruntime/runtime.ts'

/** Where the examples of a micro-batch lie. */
export interface Positions {
  readonly batch: number
  readonly seq: number
  /** Flat positions b * seq + t at which the own tokens of examples begin, ascending; each row begins with one. */
  readonly starts: Int32Array
  /** How many tokens each of them has, those included that it shares. */
  readonly lengths: Int32Array
  /** How many of its first tokens each shares with the one before it in its row, and sees there; none by default. */
  readonly shared?: Int32Array | undefined
}

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

/** The lowest f32, as transformers masks: minus infinity would make a fully masked row NaN. */
export const lowest = -3.4028234663852886e38

/** Whether rows hold several examples. */
export function isPacked({ batch, starts }: Positions): boolean {
  return starts.length > batch
}

/**
 * What a block of this kind is fed of the positions in a micro-batch: `cos` and `sin` of each, counted from where its example begins, and
 * the masks of attention in `parts` parts. Where rows hold one example each, they share a causal mask; where several, each row has one that
 * lets a position see its own example alone, along the path of what it shares with others.
 */
export function positionFeeds(positions: Positions, kind: PositionKind, parts: number): Feeds {
  const { seq } = positions
  const { rope, window = seq } = kind
  return { ...(rope && rotaryFeeds(positions, rope)), ...attentionFeeds(pathsOf(positions), { seq, window, parts }) }
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

/** `length` places of a row, from `place` on, that hold the positions of an example from `position` on. */
interface Run {
  readonly place: number
  readonly position: number
  readonly length: number
}

/** Where the positions of an example lie in its row: what it shares, place by place, and last its own. */
type Path = readonly Run[]

/** The paths of the examples of each row, or, where all hold one example and a mask serves them all, of one row. */
function pathsOf(positions: Positions): Path[][] {
  const { batch, seq, starts, shared } = positions
  if (!isPacked(positions)) return [[[{ place: 0, position: 0, length: seq }]]]
  const rows: Path[][] = Array.from({ length: batch }, () => [])
  starts.forEach((start, i) => {
    const paths = rows[Math.floor(start / seq)]!
    const position = shared?.[i] ?? 0
    const own = { place: start % seq, position, length: (starts[i + 1] ?? batch * seq) - start }
    paths.push([...beginning(paths.at(-1) ?? [], position), own])
  })
  return rows
}

/** The first `positions` positions of a path. */
function beginning(path: Path, positions: number): Run[] {
  return path
    .filter(({ position }) => position < positions)
    .map((run) => ({ ...run, length: Math.min(run.length, positions - run.position) }))
}

/**
 * Lengths and masks of the parts in which `seq` queries go through attention. A query sees the last `window` positions of its path, up to
 * itself.
 */
function attentionFeeds(
  rows: readonly (readonly Path[])[],
  { seq, window, parts }: { readonly seq: number; readonly window: number; readonly parts: number },
): Feeds {
  if (seq < parts) throw internalError(`a sequence of ${seq} cannot be cut into ${parts} parts`)
  const masks = rows.length
  const ends = Array.from({ length: parts }, (_, i) => Math.floor(((i + 1) * seq) / parts))
  const feeds: Record<string, HostTensor> = {}
  ends.forEach((keys, i) => {
    const start = ends[i - 1] ?? 0
    const mask = new Float32Array(masks * (keys - start) * keys)
    let at = 0
    for (const path of rows.flat()) {
      const own = path.at(-1)!
      const last = Math.min(keys, own.place + own.length)
      for (let query = Math.max(start, own.place); query < last; query++, at += keys) {
        hideUnseen(mask.subarray(at, at + keys), path, query, own.position + query - own.place - window + 1)
      }
    }
    feeds[`mask.${i}`] = f32Tensor(mask, [masks, 1, 1, keys - start, keys])
    if (i < parts - 1) feeds[`cut.${i}`] = idTensor(Int32Array.of(keys, seq - keys))
  })
  return { ...feeds, sizes: idTensor(Int32Array.from(ends, (end, i) => end - (ends[i - 1] ?? 0))) }
}

/** Makes a mask [keys] of zeros that of the query at a place, which sees its path from the position `first` on. */
function hideUnseen(mask: Float32Array, path: Path, query: number, first: number): void {
  let end = 0
  for (const { place, position, length } of path) {
    const begin = place + Math.min(length, Math.max(0, first - position))
    mask.fill(lowest, end, begin)
    end = Math.min(place + length, query + 1)
  }
  mask.fill(lowest, end)
}

/** Ids or positions [n] as the i64 that ONNX indexes with. */
export function idTensor(ids: Int32Array): HostTensor {
  return { dtype: 'i64', shape: [ids.length], data: BigInt64Array.from(ids, BigInt) }
}
