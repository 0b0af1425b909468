import { LowrankError } from '../util/errors.ts'
import { notFinite } from './absmax.ts'
import { type Blockwise, dequantizeBlockwise, dynamicMap, quantizeBlockwise } from './blockwise.ts'
import { blockMaxima, type FourBitOrder, packFourBit, unpackFourBit } from './kernels/kernels.ts'
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

/** How a scaled value finds its code: borders lie in the middle between two numbers. */
const orders: Readonly<Record<FourBitType, FourBitOrder>> = { nf4: orderOf('nf4'), fp4: orderOf('fp4') }

function orderOf(quantType: FourBitType): FourBitOrder {
  const table = fourBitTables[quantType]
  // Both zeros of fp4 stay: a small positive value gets the second, code 8, as in bitsandbytes.
  const codes = Uint8Array.from(table.keys()).sort((a, b) => table[a]! - table[b]!)
  const borders = Float32Array.from(codes.subarray(1), (code, i) => Math.fround(table[codes[i]!]! + table[code]!) / 2)
  return { borders, codes }
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
  const whole = Math.floor(count / blockSize)
  const [blocks, rest] = [values.subarray(0, whole * blockSize), values.subarray(whole * blockSize)]
  const last = new Float32Array(rest.length > 0 ? blockSize : 0)
  last.set(rest)
  blockMaxima(blocks, blockSize, absmax)
  blockMaxima(last, blockSize, absmax.subarray(whole))
  const broken = absmax.findIndex((max) => !(max < Infinity))
  if (broken !== -1) throw notFinite(what, values, broken * blockSize)
  const factors = absmax.subarray(0, whole).map((max) => 1 / Math.max(max, smallestScale))
  packFourBit(orders[quantType], blocks, { scales: factors, blockSize }, codes)
  if (rest.length > 0) {
    // The short block at the end is divided by its scale where the others are multiplied by the reciprocal, and its scale is never zero; an
    // odd count is completed with a zero.
    const scale = Math.max(absmax[whole] ?? 0, smallestScale)
    absmax[whole] = scale
    const packed = new Uint8Array(blockSize / 2)
    const scaled = last.map((value) => value / scale)
    packFourBit(orders[quantType], scaled, { scales: Float32Array.of(1), blockSize }, packed)
    const at = (whole * blockSize) / 2
    codes.set(packed.subarray(0, codes.length - at), at)
  }
  const scales = doubleQuant ? nestScales(absmax, what) : { absmax }
  return { quantType, blockSize, count, codes, scales }
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
  return dequantizeBlockwise(scales, { map: scales.map, blockSize: nestedBlockSize }, out, scales.offset)
}

/** The weights as f32, [count]: bit for bit what bitsandbytes multiplies with in f32. A training step does this to every weight. */
export function dequantizeFourBit(w: FourBit, out: Float32Array = new Float32Array(w.count)): Float32Array {
  unpackFourBit(fourBitTables[w.quantType], w.codes, { scales: blockScales(w), blockSize: w.blockSize }, out)
  return out
}

function checkBlockSize(blockSize: number): void {
  if (fourBitBlockSizes.includes(blockSize)) return
  throw new LowrankError('config', `4-bit block size ${blockSize} is not one of ${fourBitBlockSizes.join(', ')}`)
}
