import { f32ToF16 } from '../../util/dtype.ts'
import { internalError } from '../../util/errors.ts'

/** The block formats that are written: those whose bytes follow from the numbers alone, without a search for the best scale. */
export const writtenBlocks = { Q8_0: quantizeQ8, Q4_0: quantizeQ4 } as const

export type WrittenBlock = keyof typeof writtenBlocks

/** Elements of a block of each of them. */
export const blockWidth = 32

/** f32 numbers as blocks: whole rows, each of whole blocks. Bit for bit what the package gguf makes, as `quantize_row_..._ref` of llama.cpp. */
export function quantizeBlocks(type: WrittenBlock, data: Float32Array): Uint8Array<ArrayBuffer> {
  if (data.length % blockWidth !== 0) throw internalError(`${data.length} numbers are no whole blocks of ${type}`)
  return writtenBlocks[type](data)
}

/** A signed byte each, and a scale in f16: the largest number is 127 steps. Halves are rounded away from zero. */
function quantizeQ8(data: Float32Array): Uint8Array<ArrayBuffer> {
  const blocks = data.length / blockWidth
  const bytes = new Uint8Array(blocks * 34)
  const signed = new Int8Array(bytes.buffer)
  const scales = new Float32Array(blocks)
  for (let block = 0, i = 0; block < blocks; block++, i += blockWidth) {
    let most = 0
    for (let j = i; j < i + blockWidth; j++) most = Math.max(most, Math.abs(data[j]!))
    const d = Math.fround(most / 127)
    scales[block] = d
    const inverse = d === 0 ? 0 : Math.fround(1 / d)
    for (let j = 0; j < blockWidth; j++) {
      const steps = Math.fround(data[i + j]! * inverse)
      signed[34 * block + 2 + j] = steps < 0 ? -Math.floor(0.5 - steps) : Math.floor(steps + 0.5)
    }
  }
  putScales(bytes, 34, scales)
  return bytes
}

/**
 * Four bits each, and a scale in f16: the number furthest from zero is code 0, which stands for -8 steps. Product and sum are rounded one
 * after the other, as C and NumPy say; a compiler that fuses them comes to another code where a number lies on the edge of two.
 */
function quantizeQ4(data: Float32Array): Uint8Array<ArrayBuffer> {
  const blocks = data.length / blockWidth
  const bytes = new Uint8Array(blocks * 18)
  const scales = new Float32Array(blocks)
  for (let block = 0, i = 0; block < blocks; block++, i += blockWidth) {
    let furthest = data[i]!
    for (let j = i; j < i + blockWidth; j++) if (Math.abs(data[j]!) > Math.abs(furthest)) furthest = data[j]!
    const d = Math.fround(furthest / -8)
    scales[block] = d
    const inverse = d === 0 ? 0 : Math.fround(1 / d)
    const code = (j: number): number => Math.min(15, Math.trunc(Math.fround(Math.fround(data[j]! * inverse) + 8.5)))
    for (let j = 0; j < 16; j++) bytes[18 * block + 2 + j] = code(i + j) | (code(i + j + 16) << 4)
  }
  putScales(bytes, 18, scales)
  return bytes
}

/** Writes the scale of each block at its beginning. */
function putScales(bytes: Uint8Array, blockBytes: number, scales: Float32Array): void {
  f32ToF16(scales).forEach((half, block) => {
    bytes[block * blockBytes] = half & 255
    bytes[block * blockBytes + 1] = half >> 8
  })
}
