import { f16ToF32, f32ToF16 } from '../util/dtype.ts'
import { LowrankError } from '../util/errors.ts'
import { absmaxBits, bitsOf, floatOf, infinityBits } from './absmax.ts'

/** A matrix in the layout of LLM.int8(). Dettmers et al. 2022, https://arxiv.org/abs/2208.07339. */
interface Int8 {
  /** [rows, columns] */
  readonly data: Int8Array
  /** The largest magnitude of each row, [rows] (`SCB`). A weight is `data * scale / 127`. */
  readonly scale: Float32Array
}

/** Adding and subtracting it leaves the nearest integer, ties to even. */
const roundToInteger = 1.5 * 2 ** 52

/**
 * Quantizes a matrix [rows, columns] to the bytes of `Linear8bitLt` of bitsandbytes, which casts weights of any dtype to
 * f16 first. `what` names the tensor in the error thrown when a value is not finite in f16.
 */
export function quantizeInt8(values: Float32Array, rows: number, columns: number, what = 'the tensor'): Int8 {
  const data = new Int8Array(values.length)
  const scale = new Float32Array(rows)
  const halves = new Uint16Array(columns)
  const rounded = new Float32Array(columns)
  const bits = bitsOf(rounded)
  for (let row = 0; row < rows; row++) {
    const start = row * columns
    f16ToF32(f32ToF16(values.subarray(start, start + columns), halves), rounded)
    const max = absmaxBits(bits, 0, columns)
    if (max >= infinityBits) throw notHalf(what, values, start)
    scale[row] = floatOf(max)
    if (max === 0) continue
    // As PyTorch divides a number by a tensor: the reciprocal, rounded, times the number.
    const factor = Math.fround(Math.fround(1 / floatOf(max)) * 127)
    for (let i = 0; i < columns; i++) {
      data[start + i] = Math.fround(rounded[i]! * factor) + roundToInteger - roundToInteger
    }
  }
  return { data, scale }
}

function notHalf(what: string, values: Float32Array, start: number): LowrankError {
  const index = values.findIndex((value, i) => i >= start && !(Math.abs(value) < 65520))
  return new LowrankError('model', `cannot quantize ${what} to int8: element ${index} is ${values[index]}`, {
    hint: 'The int8 layout needs numbers that f16 can hold, below 65520; use 4-bit quantization for this model.',
  })
}

/** 1 / 127 in f32, which bitsandbytes multiplies with. */
const perStep = Math.fround(1 / 127)

/** The weights as f32, [rows, columns], bit for bit `int8_vectorwise_dequant` of bitsandbytes. */
export function dequantizeInt8({ data, scale }: Int8, out: Float32Array = new Float32Array(data.length)): Float32Array {
  const columns = data.length / scale.length
  for (let row = 0; row < scale.length; row++) {
    const rowScale = scale[row]!
    const end = (row + 1) * columns
    let i = row * columns
    // Four a turn: 1.1 ns a weight against 1.5 with one.
    for (; i + 4 <= end; i += 4) {
      out[i] = Math.fround(data[i]! * rowScale) * perStep
      out[i + 1] = Math.fround(data[i + 1]! * rowScale) * perStep
      out[i + 2] = Math.fround(data[i + 2]! * rowScale) * perStep
      out[i + 3] = Math.fround(data[i + 3]! * rowScale) * perStep
    }
    for (; i < end; i++) out[i] = Math.fround(data[i]! * rowScale) * perStep
  }
  return out
}
