/** Float formats a checkpoint may hold, by their safetensors names. */
export type FloatDtype = 'F32' | 'F16' | 'BF16'

/** The dtypes as PyTorch calls them. */
export const torchNames: Readonly<Record<FloatDtype, string>> = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' }

/** Floats of 8 bits, by their safetensors names: sign, 4 or 5 bits of exponent, 3 or 2 of mantissa. */
export type Float8Dtype = 'F8_E4M3' | 'F8_E5M2'

export function isFloat8(dtype: string): dtype is Float8Dtype {
  return dtype === 'F8_E4M3' || dtype === 'F8_E5M2'
}

/*
 * All conversions work on bit patterns through integer views of the same memory, so NaN payloads and signs survive. Typed
 * arrays have the byte order of the machine and the file formats are little-endian; every platform Node runs on
 * with onnxruntime is little-endian.
 */

/** bfloat16 bits to f32; exact. `out` has the length of `source`. */
export function bf16ToF32(source: Uint16Array, out: Float32Array = new Float32Array(source.length)): Float32Array {
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length)
  for (let i = 0; i < source.length; i++) bits[i] = source[i]! << 16
  return out
}

/** f32 to bfloat16 bits, rounded to nearest even. `out` has the length of `source`. */
export function f32ToBf16(source: Float32Array, out: Uint16Array = new Uint16Array(source.length)): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length)
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i]!
    // A NaN whose payload lies in the lower half alone would turn into an infinity: keep it quiet instead.
    const isNaN = (x & 0x7fffffff) > 0x7f800000
    out[i] = isNaN ? (x >>> 16) | 0x40 : (x + 0x7fff + ((x >>> 16) & 1)) >>> 16
  }
  return out
}

/** IEEE half precision bits to f32; exact. `out` has the length of `source`. */
export function f16ToF32(source: Uint16Array, out: Float32Array = new Float32Array(source.length)): Float32Array {
  const table = (halfTable ??= buildHalfTable())
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length)
  for (let i = 0; i < source.length; i++) bits[i] = table[source[i]!]!
  return out
}

/** f32 to IEEE half precision bits, rounded to nearest even; what is too large becomes infinite. */
export function f32ToF16(source: Float32Array, out: Uint16Array = new Uint16Array(source.length)): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length)
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i]!
    const sign = (x >>> 16) & 0x8000
    const magnitude = x & 0x7fffffff
    let half: number
    if (magnitude >= 0x38800000 && magnitude < 0x47800000) {
      // Normal in both formats: move the exponent's bias from 127 to 15; a carry out of the mantissa is the right result.
      half = (magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13
    } else if (magnitude > 0x7f800000) {
      half = 0x7e00 | ((magnitude >>> 13) & 0x3ff)
    } else if (magnitude >= 0x47800000) {
      half = 0x7c00
    } else {
      half = subnormalHalf(magnitude)
    }
    out[i] = sign | half
  }
  return out
}

/**
 * The 256 numbers of a dtype as bits of bf16, which has each of them exactly. E4M3 is the one that PyTorch calls `float8_e4m3fn`, without
 * infinities: what has all bits set but the sign is NaN. Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433.
 */
export function float8Bits(dtype: Float8Dtype): Uint16Array<ArrayBuffer> {
  const mantissaBits = dtype === 'F8_E4M3' ? 3 : 2
  const bias = dtype === 'F8_E4M3' ? 7 : 15
  const values = Float32Array.from({ length: 256 }, (_, code) => {
    const exponent = (code & 127) >> mantissaBits
    const mantissa = (code & ((1 << mantissaBits) - 1)) / (1 << mantissaBits)
    const magnitude = exponent === 0 ? mantissa * 2 ** (1 - bias) : (1 + mantissa) * 2 ** (exponent - bias)
    const sign = code < 128 ? 1 : -1
    if (dtype === 'F8_E4M3' && (code & 127) === 127) return NaN
    if (dtype === 'F8_E5M2' && exponent === 31) return mantissa === 0 ? sign * Infinity : NaN
    return sign * magnitude
  })
  return f32ToBf16(values) as Uint16Array<ArrayBuffer>
}

/** Values of a tensor's bytes as f32: a view where the bytes are f32 already (and aligned), a copy otherwise, in `out` if it is given. */
export function bytesToF32(bytes: Uint8Array, dtype: FloatDtype, out?: Float32Array): Float32Array {
  const size = dtype === 'F32' ? 4 : 2
  const aligned = bytes.byteOffset % size === 0 ? bytes : bytes.slice()
  if (dtype === 'F32') return new Float32Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 4)
  const halves = new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 2)
  return dtype === 'BF16' ? bf16ToF32(halves, out) : f16ToF32(halves, out)
}

/** The bytes of f32 values stored as `dtype`: a view where that is f32, a copy otherwise, in `out` if it is given. */
export function f32ToBytes(values: Float32Array, dtype: FloatDtype, out?: Uint16Array): Uint8Array {
  return bytesOf(dtype === 'F32' ? values : dtype === 'BF16' ? f32ToBf16(values, out) : f32ToF16(values, out))
}

/** The memory of an array as bytes. Arrays of weights are never shared between threads. */
export function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array<ArrayBuffer> {
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength)
}

/** A magnitude below 2^-14 (f32 bits) in steps of 2^-24, ties to even. */
function subnormalHalf(magnitude: number): number {
  const shift = 126 - (magnitude >>> 23)
  if (shift > 24) return 0
  const mantissa = (magnitude & 0x7fffff) | 0x800000
  const floor = mantissa >>> shift
  const rest = mantissa & ((1 << shift) - 1)
  const tie = 1 << (shift - 1)
  return rest > tie || (rest === tie && (floor & 1) === 1) ? floor + 1 : floor
}

let halfTable: Uint32Array | undefined

/** The 65,536 half precision numbers by their bits; do not change the array. For those who read one here and there. */
export function halfValues(): Float32Array {
  const table = (halfTable ??= buildHalfTable())
  return new Float32Array(table.buffer)
}

/** f32 bits of each of the 65,536 half precision numbers. */
function buildHalfTable(): Uint32Array {
  const table = new Uint32Array(65536)
  const value = new Float32Array(1)
  const valueBits = new Uint32Array(value.buffer)
  for (let half = 0; half < 65536; half++) {
    const sign = (half & 0x8000) << 16
    const exponent = (half >>> 10) & 31
    const mantissa = half & 0x3ff
    if (exponent === 31) {
      table[half] = sign | 0x7f800000 | (mantissa << 13)
    } else if (exponent > 0) {
      table[half] = sign | ((exponent + 112) << 23) | (mantissa << 13)
    } else {
      value[0] = mantissa * 2 ** -24
      table[half] = sign | valueBits[0]!
    }
  }
  return table
}

/** The first element that is NaN or infinite, of values as their dtype stores them; -1 where all are finite. */
export function indexOfNonFinite(data: Float32Array | Uint16Array, dtype: FloatDtype): number {
  // Not finite is what has all bits of the exponent set. Bits are compared since that is several times faster than asking each number.
  const bits = data instanceof Float32Array ? new Uint32Array(data.buffer, data.byteOffset, data.length) : data
  const exponent = { F32: 0x7f800000, BF16: 0x7f80, F16: 0x7c00 }[dtype]
  for (let i = 0; i < bits.length; i++) if ((bits[i]! & exponent) === exponent) return i
  return -1
}

/** `NaN in element 12`: for messages. `first`: the place in the tensor of the first element of `data`. */
export function describeElement(data: Float32Array | Uint16Array, dtype: FloatDtype, index: number, first = 0): string {
  const one = data.slice(index, index + 1)
  const [value] = bytesToF32(new Uint8Array(one.buffer), dtype)
  return `${value} in element ${first + index}`
}

/** The first element that is finite, but too large for `dtype`, rounded as the conversions above do; -1 where there is none. */
export function indexOfOverflow(values: Float32Array, dtype: FloatDtype): number {
  const smallest = { F32: infinity, BF16: 0x7f7f8000, F16: 0x477ff000 }[dtype]
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  for (let i = 0; i < bits.length; i++) {
    const magnitude = bits[i]! & 0x7fffffff
    if (magnitude >= smallest && magnitude < infinity) return i
  }
  return -1
}

/** The bits of an f32. */
const infinity = 0x7f800000
