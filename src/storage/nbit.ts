/** A weight [rows, columns] in integers of a few bits, each block of a row with a scale, as the kernel MatMulNBits reads it. */
export interface NBits {
  /** [rows, blocks, bytes of a block]; two numbers to a byte where they have 4 bits, the first in its low half. */
  readonly codes: Uint8Array
  /** [rows, blocks] */
  readonly scales: Float32Array
}

/** Consecutive elements of a row that share a scale: what llama.cpp's Q8_0 and Q4_0 have, too. */
export const nBitBlock = 32

/** Rounds a weight to integers of `bits` bits: 8 as Q8_0 does (largest magnitude 127), 4 as Q4_0 (largest magnitude -8). */
export function quantizeNBits(weight: Float32Array, [rows = 0, columns = 0]: readonly number[], bits: 8 | 4): NBits {
  const blocks = Math.ceil(columns / nBitBlock)
  const bytes = (nBitBlock * bits) / 8
  const codes = new Uint8Array(rows * blocks * bytes)
  const scales = new Float32Array(rows * blocks)
  const pack = bits === 8 ? packBytes : packHalves
  for (let row = 0; row < rows; row++) {
    for (let block = 0; block < blocks; block++) {
      const start = row * columns + block * nBitBlock
      const end = Math.min(start + nBitBlock, (row + 1) * columns)
      const at = row * blocks + block
      scales[at] = pack(weight, start, end, codes, at * bytes)
    }
  }
  return { codes, scales }
}

/** Packs integers [rows, columns] of -128 to 127, or of -8 to 7, with the scales [rows, blocks] that they have. */
export function packNBits(
  integers: Int8Array,
  scales: Float32Array,
  [rows = 0, columns = 0]: readonly number[],
  bits: 8 | 4,
): NBits {
  const width = Math.ceil(columns / nBitBlock) * nBitBlock
  const codes = new Uint8Array((rows * width * bits) / 8).fill(bits === 8 ? 128 : 0x88)
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < columns; i++) {
      const [integer, at] = [integers[row * columns + i]!, row * width + i]
      if (bits === 8) codes[at] = integer + 128
      else codes[at >> 1] = (codes[at >> 1]! & ~(15 << (4 * (at & 1)))) | ((integer + 8) << (4 * (at & 1)))
    }
  }
  return { codes, scales }
}

/** The f32 form. */
export function dequantizeNBits(
  { codes, scales }: NBits,
  [rows = 0, columns = 0]: readonly number[],
  bits: 8 | 4,
): Float32Array {
  const blocks = Math.ceil(columns / nBitBlock)
  const out = new Float32Array(rows * columns)
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < columns; i++) {
      const at = (row * blocks + Math.floor(i / nBitBlock)) * nBitBlock + (i % nBitBlock)
      const code = bits === 8 ? codes[at]! - 128 : ((codes[at >> 1]! >> (4 * (at & 1))) & 15) - 8
      out[row * columns + i] = code * scales[row * blocks + Math.floor(i / nBitBlock)]!
    }
  }
  return out
}

/** Writes a block as bytes around 128; the scale is returned. */
function packBytes(weight: Float32Array, start: number, end: number, codes: Uint8Array, at: number): number {
  let most = 0
  for (let i = start; i < end; i++) most = Math.max(most, Math.abs(weight[i]!))
  const scale = Math.fround(most / 127)
  const inverse = scale === 0 ? 0 : 1 / scale
  codes.fill(128, at, at + nBitBlock)
  for (let i = start; i < end; i++)
    codes[at + i - start] = 128 + Math.max(-127, Math.min(127, Math.round(weight[i]! * inverse)))
  return scale
}

/** Writes a block as halves of bytes around 8. The element of largest magnitude is -8 times the scale, which has its sign reversed. */
function packHalves(weight: Float32Array, start: number, end: number, codes: Uint8Array, at: number): number {
  let most = 0
  for (let i = start; i < end; i++) if (Math.abs(weight[i]!) > Math.abs(most)) most = weight[i]!
  const scale = Math.fround(most / -8)
  const inverse = scale === 0 ? 0 : 1 / scale
  codes.fill(0x88, at, at + nBitBlock / 2)
  for (let i = start; i < end; i++) {
    const code = Math.max(0, Math.min(15, Math.floor(weight[i]! * inverse + 8.5)))
    const [place, shift] = [at + ((i - start) >> 1), 4 * ((i - start) & 1)]
    codes[place] = (codes[place]! & ~(15 << shift)) | (code << shift)
  }
  return scale
}
