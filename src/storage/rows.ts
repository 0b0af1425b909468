import { bf16ToF32, f16ToF32 } from '../util/dtype.ts'
import { elements } from '../util/shape.ts'
import { unpackRow, widened } from './formats.ts'
import { blockScales, dequantizeFourBit } from './fourbit.ts'
import { dequantizeInt8 } from './int8.ts'
import { dequantizeNBits } from './nbit.ts'
import { joinSlices } from './slices.ts'
import {
  type FloatWeight,
  type FourBitWeight,
  type Int8Weight,
  isFloat,
  isStored,
  type NBitWeight,
  type StoredWeight,
} from './stored.ts'

/** Writes rows of a weight from `start` up to `end`, as f32, to `out`, which has their size. */
export type RowReader = (rows: { readonly start: number; readonly end: number }, out: Float32Array) => void

/**
 * Reads a stored weight as f32 some rows at a time, the same numbers as `widened` gives: a large one, of which that would be the larger part
 * of all memory, never exists so as a whole. A vector is one row.
 */
export function rowReader(weight: StoredWeight): RowReader {
  const { shape } = weight
  const width = shape.length < 2 ? elements(shape) : elements(shape.slice(1))
  if (isFloat(weight)) return floatRows(weight, width)
  if (isStored(weight, 'int8')) return int8Rows(weight, width)
  if (isStored(weight, '4bit')) return fourBitRows(weight, width)
  if (isStored(weight, 'nbit')) return nBitRows(weight, width)
  if (isStored(weight, 'slices')) return (rows, out) => out.set(joinSlices(weight.slices, shape, rows))
  return ({ start, end }, out) => {
    for (let row = start; row < end; row++) {
      unpackRow(weight, row, out.subarray((row - start) * width, (row - start + 1) * width))
    }
  }
}

function floatRows({ storage, data }: FloatWeight, width: number): RowReader {
  return ({ start, end }, out) => {
    const own = data.subarray(start * width, end * width)
    if (own instanceof Float32Array) out.set(own)
    else if (storage === 'BF16') bf16ToF32(own, out)
    else f16ToF32(own, out)
  }
}

function int8Rows({ data, scale }: Int8Weight, width: number): RowReader {
  return ({ start, end }, out) => {
    dequantizeInt8({ data: data.subarray(start * width, end * width), scale: scale.subarray(start, end) }, out)
  }
}

/** Each row has blocks of its own. */
function nBitRows({ numbers, storage: { bits }, shape: [rows = 0] }: NBitWeight, width: number): RowReader {
  const { codes, scales } = numbers
  return ({ start, end }, out) => {
    const of = <T extends Uint8Array | Float32Array>(all: T) =>
      all.subarray((all.length / rows) * start, (all.length / rows) * end) as T
    out.set(dequantizeNBits({ codes: of(codes), scales: of(scales) }, [end - start, width], bits))
  }
}

/** Blocks run over the rows: where one holds parts of two, the weight is expanded as a whole. */
function fourBitRows(weight: FourBitWeight, width: number): RowReader {
  const { packed } = weight
  const { blockSize, codes } = packed
  if (width % blockSize !== 0) return floatRows(widened(weight), width)
  const scales = blockScales(packed)
  return ({ start, end }, out) => {
    const [from, to] = [start * width, end * width]
    const absmax = scales.subarray(from / blockSize, to / blockSize)
    const part = { ...packed, count: to - from, codes: codes.subarray(from / 2, to / 2), scales: { absmax } }
    dequantizeFourBit(part, out)
  }
}
