import { internalError } from '../util/errors.ts'
import { f32Tensor, type Feeds, type HostTensor } from './runtime.ts'

/** The lowest f32, as transformers masks: minus infinity would make a fully masked row NaN. */
const lowest = -3.4028234663852886e38

/** Lengths and causal masks of the parts in which `seq` queries go through attention. */
export function attentionFeeds(seq: number, parts: number): Feeds {
  if (seq < parts) throw internalError(`a sequence of ${seq} cannot be cut into ${parts} parts`)
  const ends = Array.from({ length: parts }, (_, i) => Math.floor(((i + 1) * seq) / parts))
  const feeds: Record<string, HostTensor> = {}
  ends.forEach((keys, i) => {
    const start = ends[i - 1] ?? 0
    const mask = new Float32Array((keys - start) * keys)
    for (let row = start; row < keys; row++) mask.fill(lowest, (row - start) * keys + row + 1, (row - start + 1) * keys)
    feeds[`mask.${i}`] = f32Tensor(mask, [1, 1, 1, keys - start, keys])
    if (i < parts - 1) feeds[`cut.${i}`] = idTensor(Int32Array.of(keys, seq - keys))
  })
  return { ...feeds, sizes: idTensor(Int32Array.from(ends, (end, i) => end - (ends[i - 1] ?? 0))) }
}

/** Ids or positions [n] as the i64 that ONNX indexes with. */
export function idTensor(ids: Int32Array): HostTensor {
  return { dtype: 'i64', shape: [ids.length], data: BigInt64Array.from(ids, BigInt) }
}
