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

/** A weight row by row, in parts. */
export async function* rowsOf(source: WeightSource, { name, shape }: WeightSpec): AsyncGenerator<F32Rows> {
  const [rows, width] = shape.length < 2 ? [1, elements(shape)] : [shape[0] ?? 0, elements(shape.slice(1))]
  const step = Math.max(1, Math.floor(mostElements / width))
  const weight = await source.load(name)
  const part = partsOf(weight, width, Math.min(step, rows))
  for (let start = 0; start < rows; start += step) {
    const end = Math.min(rows, start + step)
    yield { start, end, data: part(start, end) }
  }
}

/** Formats that cannot be unpacked row by row are unpacked once. */
function partsOf(weight: StoredWeight, width: number, most: number): (start: number, end: number) => Float32Array {
  if (!['float', 'blocks', 'split'].includes(kindOf(weight.storage)) || weight.storage === 'F32') {
    const { data } = widened(weight)
    return (start, end) => data.subarray(start * width, end * width)
  }
  const memory = new Float32Array(most * width)
  return (start, end) => {
    for (let row = start; row < end; row++) {
      unpackRow(weight, row, memory.subarray((row - start) * width, (row - start + 1) * width))
    }
    return memory.subarray(0, (end - start) * width)
  }
}
