import { internalError } from '../util/errors.ts'
import { f32Tensor, type Feeds, type HostTensor } from './onnxruntime/runtime.ts'

/** Where the examples of a micro-batch lie. */
export interface Positions {
  readonly batch: number
  readonly seq: number
  /** Flat positions b * seq + t at which examples begin, ascending; each row begins with one. */
  readonly starts: Int32Array
}

/** The lowest f32, as transformers masks: minus infinity would make a fully masked row NaN. */
const lowest = -3.4028234663852886e38

/** Whether rows hold several examples. */
export function isPacked({ batch, starts }: Positions): boolean {
  return starts.length > batch
}

/**
 * cos and sin of each position, counted from where its example begins, and the masks of attention. Where rows hold one example each, they
 * share a causal mask; where several, each row has one that lets a position see its own example alone.
 */
export function positionFeeds(
  positions: Positions,
  options: {
    readonly parts: number
    readonly headDim: number
    readonly rope: (positions: number) => { readonly cos: Float32Array; readonly sin: Float32Array }
  },
): Feeds {
  const { batch, seq, starts } = positions
  const { parts, headDim, rope } = options
  const half = headDim / 2
  const tables = rope(seq)
  const begins = new Int32Array(batch * seq)
  const [cos, sin] = [new Float32Array(batch * seq * half), new Float32Array(batch * seq * half)]
  starts.forEach((start, i) => {
    // Padding counts on from the last example of its row: nothing is predicted from it, and nothing sees it.
    const end = starts[i + 1] ?? batch * seq
    begins.fill(start % seq, start, end)
    cos.set(tables.cos.subarray(0, (end - start) * half), start * half)
    sin.set(tables.sin.subarray(0, (end - start) * half), start * half)
  })
  const shape = [batch, seq, half]
  const masked = isPacked(positions) ? begins : begins.subarray(0, seq)
  return { cos: f32Tensor(cos, shape), sin: f32Tensor(sin, shape), ...attentionFeeds(masked, seq, parts) }
}

/**
 * Lengths and masks of the parts in which `seq` queries go through attention. `begins` [masks * seq] tells the first position of its row
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
