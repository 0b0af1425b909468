import { LowrankError } from '../util/errors.ts'

/**
 * The largest magnitude of `bits[start, end)`, the bit patterns of f32 values, as a bit pattern. Magnitudes order like
 * their patterns, and infinities and NaN lie above all numbers (a maximum of floats would pass over a NaN).
 */
export function absmaxBits(bits: Int32Array, start: number, end: number): number {
  let max = 0
  for (let i = start; i < end; i++) {
    const magnitude = bits[i]! & 0x7fffffff
    if (magnitude > max) max = magnitude
  }
  return max
}

/** The bit patterns of f32 values, in place. */
export function bitsOf(values: Float32Array): Int32Array {
  return new Int32Array(values.buffer, values.byteOffset, values.length)
}

const patternBits = new Int32Array(1)
const patternFloat = new Float32Array(patternBits.buffer)

/** The f32 number of a bit pattern. */
export function floatOf(bits: number): number {
  patternBits[0] = bits
  return patternFloat[0]!
}

/** The bit pattern of +infinity: a magnitude from here on is not a finite number. */
export const infinityBits = 0x7f800000

/** The error for a tensor that has no quantized form; `values` is the part at `start` where `absmaxBits` found it. */
export function notFinite(what: string, values: Float32Array, start: number): LowrankError {
  const index = values.findIndex((value, i) => i >= start && !Number.isFinite(value))
  return new LowrankError('model', `cannot quantize ${what}: element ${index} is ${values[index]}`, {
    hint: 'Quantization needs finite numbers; the tensor is damaged, or its numbers overflowed before they were saved.',
  })
}
