import type { WeightSource } from '../model/sources/source.ts'
import type { WeightSpec } from '../model/weight-specs.ts'
import { unpackRow, widened } from '../storage/formats.ts'
import { kindOf, type StoredWeight } from '../storage/stored.ts'
import { elements } from '../util/shape.ts'

/** Some rows of a weight as f32; a vector is one row. Valid until the next are asked for. */
export interface F32Rows {
  readonly start: number
  readonly end: number
  readonly data: Float32Array
}

/** Elements that are made f32 at once: the f32 form of a large embedding would take twice its memory and more. */
const mostElements = 2 ** 21

/** A weight row by row, in parts; of one that its source can only give whole, that is all that is in memory. */
export async function* rowsOf(source: WeightSource, { name, shape }: WeightSpec): AsyncGenerator<F32Rows> {
  if (shape.length < 2) {
    yield { start: 0, end: 1, data: widened(await source.load(name)).data }
    return
  }
  const [count, width] = [shape[0] ?? 0, elements(shape.slice(1))]
  const step = Math.max(1, Math.floor(mostElements / width))
  let whole: ((start: number, end: number) => Float32Array) | undefined
  for (let start = 0; start < count; start += step) {
    const end = Math.min(count, start + step)
    if (whole === undefined) {
      const weight = await source.load(name, undefined, { start, end })
      if (weight.shape[0] === end - start && end - start < count) {
        yield { start, end, data: widened(weight).data }
        continue
      }
      whole = partsOf(weight, width, step)
    }
    yield { start, end, data: whole(start, end) }
  }
}

/** Formats that cannot be unpacked row by row are unpacked once. */
function partsOf(weight: StoredWeight, width: number, most: number): (start: number, end: number) => Float32Array {
  if (!['float', 'blocks', 'split'].includes(kindOf(weight.storage)) || weight.storage === 'F32') {
    const { data } = widened(weight)
    return (start, end) => data.subarray(start * width, end * width)
  }
  const memory = new Float32Array(Math.min(most, weight.shape[0] ?? 0) * width)
  return (start, end) => {
    for (let row = start; row < end; row++) {
      unpackRow(weight, row, memory.subarray((row - start) * width, (row - start + 1) * width))
    }
    return memory.subarray(0, (end - start) * width)
  }
}
