import { internalError } from '../util/errors.ts'
import { f32Tensor, type Feeds, type HostTensor } from './onnxruntime/runtime.ts'

/** Where the examples of a micro-batch lie. */
export interface Positions {
  readonly batch: number
  readonly seq: number
  /** Flat positions b * seq + t at which examples begin, ascending; each row begins with one. */
  readonly starts: Int32Array
  /** How many tokens each of them has. */
  readonly lengths: Int32Array
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
 * lets a position see its own example alone.
 */
export function positionFeeds(positions: Positions, kind: PositionKind, parts: number): Feeds {
  const { batch, seq, starts } = positions
  const { rope, window = seq } = kind
  const begins = new Int32Array(isPacked(positions) ? batch * seq : seq)
  if (isPacked(positions)) {
    starts.forEach((start, i) => begins.fill(start % seq, start, starts[i + 1] ?? batch * seq))
  }
  const first = begins.map((begin, i) => Math.max(begin, (i % seq) - window + 1))
  return { ...(rope && rotaryFeeds(positions, rope)), ...attentionFeeds(first, seq, parts) }
}

function rotaryFeeds({ batch, seq, starts, lengths }: Positions, { width, tables, regime }: Rotation): Feeds {
  const [cos, sin] = [new Float32Array(batch * seq * width), new Float32Array(batch * seq * width)]
  const common = regime === undefined ? tables(seq, seq) : undefined
  starts.forEach((start, i) => {
    // Padding counts on from the last example of its row: nothing is predicted from it, and nothing sees it.
    const positions = (starts[i + 1] ?? batch * seq) - start
    const own = common ?? tables(positions, lengths[i] ?? positions)
    cos.set(own.cos.subarray(0, positions * width), start * width)
    sin.set(own.sin.subarray(0, positions * width), start * width)
  })
  const shape = [batch, seq, width]
  return { cos: f32Tensor(cos, shape), sin: f32Tensor(sin, shape) }
}

/**
 * Lengths and masks of the parts in which `seq` queries go through attention. `begins` [masks * seq] is the first position of its row
 * that a query sees; the last is itself.
 */
function attentionFeeds(begins: Int32Array, seq: number, parts: number): Feeds {
  if (seq < parts) throw internalError(`a sequence of ${seq} cannot be cut into ${parts} parts`)
  const masks = begins.length / seq
  const ends = Array.from({ length: parts }, (_, i) => Math.floor(((i + 1) * seq) / parts))
  const feeds: Record<string, HostTensor> = {}
  ends.forEach((keys, i) => {
    const start = ends[i - 1] ?? 0
    const mask = new Float32Array(masks * (keys - start) * keys)
    let row = 0
    for (let b = 0; b < masks; b++) {
      for (let query = start; query < keys; query++, row += keys) {
        mask.fill(lowest, row, row + (begins[b * seq + query] ?? 0))
        mask.fill(lowest, row + query + 1, row + keys)
      }
    }
    feeds[`mask.${i}`] = f32Tensor(mask, [masks, 1, 1, keys - start, keys])
    if (i < parts - 1) feeds[`cut.${i}`] = idTensor(Int32Array.of(keys, seq - keys))
  })
  return { ...feeds, sizes: idTensor(Int32Array.from(ends, (end, i) => end - (ends[i - 1] ?? 0))) }
}

/** Ids or positions [n] as the i64 that ONNX indexes with. */
export function idTensor(ids: Int32Array): HostTensor {
  return { dtype: 'i64', shape: [ids.length], data: BigInt64Array.from(ids, BigInt) }
}
