import { absmaxBits, bitsOf, floatOf, infinityBits, notFinite } from './absmax.ts'
import { unpackEightBit } from './kernels/kernels.ts'

/** f32 values as one byte each: `map[codes[i]] * absmax[block of i]`. */
export interface Blockwise {
  /** [count] */
  readonly codes: Uint8Array
  /** [ceil(count / blockSize)] */
  readonly absmax: Float32Array
}

interface BlockwiseFormat {
  /** 256 numbers in ascending order from -1 or 0 to 1, see `dynamicMap`. */
  readonly map: Float32Array
  readonly blockSize: number
}

let signedMap: Float32Array | undefined
let unsignedMap: Float32Array | undefined

/**
 * The 256 numbers of the dynamic 8-bit type, ascending: seven decades up to 1, the larger the finer. Bit for bit
 * `create_dynamic_map` of bitsandbytes; do not change the array. Dettmers 2016, https://arxiv.org/abs/1511.04561.
 */
export function dynamicMap(signed: boolean): Float32Array {
  return signed ? (signedMap ??= makeDynamicMap(true)) : (unsignedMap ??= makeDynamicMap(false))
}

function makeDynamicMap(signed: boolean): Float32Array {
  const numbers = [0, 1]
  for (let decade = 0; decade < 7; decade++) {
    const intervals = signed ? 2 ** decade : 2 ** (decade + 1)
    const scale = Math.fround(10 ** (decade - 6))
    for (let i = 0; i < intervals; i++) {
      const middle = Math.fround(Math.fround(tenthToOne(i, intervals) + tenthToOne(i + 1, intervals)) / 2)
      numbers.push(scale * middle)
      if (signed) numbers.push(-(scale * middle))
    }
  }
  return Float32Array.from(numbers).sort()
}

/** `torch.linspace(0.1, 1, intervals + 1)[i]`: from the nearer end, multiplied and added in one rounding. */
function tenthToOne(i: number, intervals: number): number {
  const start = Math.fround(0.1)
  const step = Math.fround(Math.fround(1 - start) / intervals)
  return Math.fround(i < Math.floor((intervals + 1) / 2) ? start + step * i : 1 - step * (intervals - i))
}

/** Steps in which the CPU kernel of bitsandbytes tells scaled values apart. */
const steps = 65536
const tables = new WeakMap<Float32Array, Uint8Array>()

/** The code for each step of [-1, 1]; its middle decides, a tie goes down. Made once per map. */
function nearestCodes(map: Float32Array): Uint8Array {
  const known = tables.get(map)
  if (known !== undefined) return known
  const table = new Uint8Array(steps)
  for (let step = 0, code = 0; step < steps; step++) {
    const value = Math.fround(-1 + Math.fround((2 * step) / (steps - 1)))
    while (code < 255 && Math.fround(Math.fround(map[code]! + map[code + 1]!) / 2) < value) code++
    table[step] = code
  }
  tables.set(map, table)
  return table
}

/**
 * Quantizes f32 values in blocks as bitsandbytes does on the CPU (`quantize_blockwise`), bit for bit; the last block may
 * be short. Writes into `out` where it is given. `what` names the values in the error thrown when one is not finite.
 */
export function quantizeBlockwise(
  values: Float32Array,
  { map, blockSize }: BlockwiseFormat,
  out: Blockwise = {
    codes: new Uint8Array(values.length),
    absmax: new Float32Array(Math.ceil(values.length / blockSize)),
  },
  what = 'the values',
): Blockwise {
  const table = nearestCodes(map)
  const bits = bitsOf(values)
  const { codes, absmax } = out
  for (let block = 0, start = 0; start < values.length; block++, start += blockSize) {
    const end = Math.min(start + blockSize, values.length)
    const max = absmaxBits(bits, start, end)
    if (max >= infinityBits) throw notFinite(what, values, start)
    absmax[block] = floatOf(max)
    if (max === 0) {
      // Any code times zero; bitsandbytes writes the first.
      codes.fill(0, start, end)
      continue
    }
    const inverse = Math.fround(1 / floatOf(max))
    if (inverse === Infinity) {
      // The scale is subnormal: what is positive becomes 1 there, a zero not a number and then the first code.
      for (let i = start; i < end; i++) codes[i] = table[values[i]! > 0 ? steps - 1 : 0]!
      continue
    }
    for (let i = start; i < end; i++) {
      const shifted = Math.fround(Math.fround(values[i]! * inverse) + 1)
      // The kernel multiplies and adds in one rounding, as here: the exact result fits a double. Scaled values that
      // rounding put an ulp beyond 1 need no clamp, they end in the same step.
      codes[i] = table[Math.fround(shifted * (0.5 * (steps - 1)) + 0.5) | 0]!
    }
  }
  return out
}

/** The values of `quantizeBlockwise`'s result, f32 [count]; `offset` is added to each. */
export function dequantizeBlockwise(
  { codes, absmax }: Blockwise,
  { map, blockSize }: BlockwiseFormat,
  out: Float32Array = new Float32Array(codes.length),
  // Added to -0, a zero keeps its sign.
  offset = -0,
): Float32Array {
  unpackEightBit(map, codes, { scales: absmax, blockSize, offset }, out)
  return out
}
