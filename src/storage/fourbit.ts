import { LowrankError } from '../util/errors.ts'
import { absmaxBits, bitsOf, floatOf, infinityBits, notFinite } from './absmax.ts'
import { type Blockwise, dequantizeBlockwise, dynamicMap, quantizeBlockwise } from './blockwise.ts'
import { mean } from './mean.ts'

export type FourBitType = 'nf4' | 'fp4'

export interface FourBitFormat {
  readonly quantType: FourBitType
  /** Weights that share a scale: one of `fourBitBlockSizes`. Blocks run over the rows of a matrix. */
  readonly blockSize: number
  /** Whether the scales themselves are stored in 8 bits. */
  readonly doubleQuant: boolean
}

export const fourBitBlockSizes: readonly number[] = [32, 64, 128, 256, 512, 1024, 2048, 4096]

/** A scale of each block as f32. */
interface PlainScales {
  readonly absmax: Float32Array
}

/** A scale of each block in 8 bits: `map[codes[block]] * absmax[block / 256] + offset`. */
interface NestedScales extends Blockwise {
  /** The 256 numbers of the codes (`nested_quant_map`). */
  readonly map: Float32Array
  /** The mean of the scales, an f32 number. */
  readonly offset: number
}

/** A tensor in the 4-bit layout of bitsandbytes: `table[code] * scale of the block`. */
export interface FourBit {
  readonly quantType: FourBitType
  readonly blockSize: number
  /** Weights. */
  readonly count: number
  /** [ceil(count / 2)], the even weight in the high half of the byte. */
  readonly codes: Uint8Array
  readonly scales: PlainScales | NestedScales
}

/** The numbers of the 16 codes (`quant_map`). Dettmers et al. 2023, https://arxiv.org/abs/2305.14314, appendix E. */
export const fourBitTables: Readonly<Record<FourBitType, Float32Array>> = {
  nf4: Float32Array.of(
    -1,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1,
  ),
  fp4: Float32Array.from([0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3], (x) => x / 12),
}

/** Block size of the scales under double quantization. */
export const nestedBlockSize = 256

/**
 * How a scaled value finds its code. [-1, 1] is cut into bins so narrow that none holds more than one border between two
 * codes; the bin is a multiplication, and one comparison with the border decides. A value on a border goes down.
 */
interface Nearest {
  /** The border within each bin, or infinity. */
  readonly border: Float32Array
  readonly below: Uint8Array
  readonly above: Uint8Array
}

const halfBins = 512
const nearest: Readonly<Record<FourBitType, Nearest>> = { nf4: makeNearest('nf4'), fp4: makeNearest('fp4') }

function makeNearest(quantType: FourBitType): Nearest {
  const table = fourBitTables[quantType]
  // Both zeros of fp4 stay: a small positive value gets the second, code 8, as in bitsandbytes.
  const order = Array.from(table.keys()).sort((a, b) => table[a]! - table[b]!)
  const borders = order.slice(1).map((code, i) => Math.fround(Math.fround(table[order[i]!]! + table[code]!) / 2))
  const bins = 2 * halfBins + 1
  const border = new Float32Array(bins).fill(Infinity)
  const below = new Uint8Array(bins)
  const above = new Uint8Array(bins)
  for (let bin = 0, passed = 0; bin < bins; bin++) {
    below[bin] = order[passed]!
    if (passed < borders.length && binOf(borders[passed]!) === bin) border[bin] = borders[passed++]!
    above[bin] = order[passed]!
  }
  return { border, below, above }
}

function binOf(scaled: number): number {
  return ((scaled + 1) * halfBins) | 0
}

/** The smallest scale bitsandbytes divides by (a subnormal number, 1e-38 in f32). */
const smallestScale = Math.fround(1e-38)

/**
 * Quantizes f32 values (exact upcasts, where the checkpoint is f16 or bf16) to the bytes bitsandbytes makes of them on the
 * CPU (`quantize_4bit`), any count, in row-major order. `what` names the tensor in the error thrown when a value is
 * not finite.
 */
export function quantizeFourBit(values: Float32Array, format: FourBitFormat, what = 'the tensor'): FourBit {
  const { quantType, blockSize, doubleQuant } = format
  checkBlockSize(blockSize)
  const count = values.length
  const codes = new Uint8Array(Math.ceil(count / 2))
  const absmax = new Float32Array(Math.ceil(count / blockSize))
  const bits = bitsOf(values)
  for (let block = 0, start = 0; start < count; block++, start += blockSize) {
    const end = Math.min(start + blockSize, count)
    const max = absmaxBits(bits, start, end)
    if (max >= infinityBits) throw notFinite(what, values, start)
    const scale = Math.max(floatOf(max), smallestScale)
    if (end - start === blockSize) {
      absmax[block] = floatOf(max)
      encode(values.subarray(start, end), Math.fround(1 / scale), nearest[quantType], codes, start / 2)
    } else {
      // The short block at the end is divided by its scale where the others are multiplied by the reciprocal, and its
      // scale is never zero; an odd count is completed with a zero.
      absmax[block] = scale
      const scaled = new Float32Array(2 * Math.ceil((end - start) / 2))
      for (let i = start; i < end; i++) scaled[i - start] = values[i]! / scale
      encode(scaled, 1, nearest[quantType], codes, start / 2)
    }
  }
  const scales = doubleQuant ? nestScales(absmax, what) : { absmax }
  return { quantType, blockSize, count, codes, scales }
}

/** Codes of `values * factor`, two to a byte from `at` on. */
function encode(
  values: Float32Array,
  factor: number,
  { border, below, above }: Nearest,
  codes: Uint8Array,
  at: number,
): void {
  for (let i = 0; i < values.length; i += 2) {
    const even = Math.fround(values[i]! * factor)
    const odd = Math.fround(values[i + 1]! * factor)
    const evenBin = binOf(even)
    const oddBin = binOf(odd)
    const high = even > border[evenBin]! ? above[evenBin]! : below[evenBin]!
    const low = odd > border[oddBin]! ? above[oddBin]! : below[oddBin]!
    codes[at + (i >> 1)] = (high << 4) | low
  }
}

function nestScales(absmax: Float32Array, what: string): NestedScales {
  const map = dynamicMap(true)
  const offset = absmax.length === 0 ? 0 : mean(absmax)
  const centred = absmax.map((value) => value - offset)
  const format = { map, blockSize: nestedBlockSize }
  return { ...quantizeBlockwise(centred, format, undefined, `the scales of ${what}`), map, offset }
}

/** The f32 scale of each block, [ceil(count / blockSize)], double quantization undone. Plain scales are not copied unless `out` is given. */
export function blockScales({ scales }: FourBit, out?: Float32Array): Float32Array {
  if (!('offset' in scales)) {
    out?.set(scales.absmax)
    return out ?? scales.absmax
  }
  const result = dequantizeBlockwise(scales, { map: scales.map, blockSize: nestedBlockSize }, out)
  for (let block = 0; block < scales.codes.length; block++) result[block]! += scales.offset
  return result
}

/**
 * The weights as f32, [count]: bit for bit what bitsandbytes multiplies with in f32. A training step does this to every
 * weight: eight weights a turn take 1.1 ns each on one core, two a turn 1.5; a scaled table per block is no faster.
 */
export function dequantizeFourBit(w: FourBit, out: Float32Array = new Float32Array(w.count)): Float32Array {
  const scales = blockScales(w)
  const table = fourBitTables[w.quantType]
  const { codes, count, blockSize } = w
  for (let block = 0, start = 0; start < count; block++, start += blockSize) {
    const end = Math.min(start + blockSize, count)
    const scale = scales[block]!
    let i = start
    for (let at = start / 2; i + 8 <= end; i += 8, at += 4) {
      const a = codes[at]!
      const b = codes[at + 1]!
      const c = codes[at + 2]!
      const d = codes[at + 3]!
      out[i] = table[a >> 4]! * scale
      out[i + 1] = table[a & 15]! * scale
      out[i + 2] = table[b >> 4]! * scale
      out[i + 3] = table[b & 15]! * scale
      out[i + 4] = table[c >> 4]! * scale
      out[i + 5] = table[c & 15]! * scale
      out[i + 6] = table[d >> 4]! * scale
      out[i + 7] = table[d & 15]! * scale
    }
    for (; i < end; i++) {
      const byte = codes[Math.floor(i / 2)]!
      out[i] = table[i % 2 === 0 ? byte >> 4 : byte & 15]! * scale
    }
  }
  return out
}

function checkBlockSize(blockSize: number): void {
  if (fourBitBlockSizes.includes(blockSize)) return
  throw new LowrankError('config', `4-bit block size ${blockSize} is not one of ${fourBitBlockSizes.join(', ')}`)
}
