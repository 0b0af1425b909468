import { describe, expect, test } from 'vitest'
import { fillUniform, stream, uniform } from '../../util/random.ts'
import { dynamicMap } from '../blockwise.ts'
import { fourBitTables, quantizeFourBit } from '../fourbit.ts'
import { blockTypes, dequantizeBlocks, indexOfBrokenBlock, layoutOf } from '../gguf/index.ts'
import { unpackEightBit, unpackFourBit } from './kernels.ts'

const tile = 2 ** 15

function randomBytes(count: number): Uint8Array {
  return Uint8Array.from(uniform(stream(1, 'bytes', count), count), (value) => Math.floor(256 * value))
}

function randomScales(count: number): Float32Array {
  const scales = new Float32Array(count)
  fillUniform(scales, -2, 2, stream(1, 'scales', count))
  return scales
}

/** By their bits: zeros of either sign differ. */
function expectSame(found: Float32Array, wanted: Float32Array): void {
  const [one, other] = [found, wanted].map((x) => new Uint8Array(x.buffer, x.byteOffset, x.byteLength))
  expect(Buffer.compare(one!, other!)).toBe(0)
}

test.each(blockTypes)('%s: more numbers than are unpacked at a time', (type) => {
  const { blockBytes, blockElements } = layoutOf(type)
  const blocks = (2 * tile) / blockElements + 3
  const bytes = randomBytes(blocks * blockBytes)
  // Scales that are not finite make numbers whose bits are nobody's business.
  for (let broken = 0; (broken = indexOfBrokenBlock(type, bytes)) !== -1;) {
    bytes.fill(1, broken * blockBytes, (broken + 1) * blockBytes)
  }
  const found = dequantizeBlocks(type, bytes, new Float32Array(blocks * blockElements).fill(NaN))
  const one = new Float32Array(blockElements)
  for (let block = 0; block < blocks; block++) {
    const wanted = dequantizeBlocks(type, bytes.subarray(block * blockBytes, (block + 1) * blockBytes), one)
    expectSame(found.subarray(block * blockElements, (block + 1) * blockElements), wanted)
  }
})

test.each(['nf4', 'fp4'] as const)('%s: more numbers are packed than at a time', (quantType) => {
  const format = { quantType, blockSize: 64, doubleQuant: false } as const
  const values = randomScales(2 * tile + 4096 + 33)
  const whole = quantizeFourBit(values, format)
  for (let start = 0; start < values.length; start += 4096) {
    const { codes, scales } = quantizeFourBit(values.subarray(start, start + 4096), format)
    expect(Buffer.compare(whole.codes.subarray(start / 2, start / 2 + codes.length), codes)).toBe(0)
    expectSame(whole.scales.absmax.subarray(start / 64, start / 64 + scales.absmax.length), scales.absmax)
  }
})

const counts = [0, 1, 2, 31, 33, 4095, tile, tile + 1, 2 * tile + 4097]

describe.each([32, 64, 4096])('blocks of %i', (blockSize) => {
  test.each(counts)('%i codes of 4 bits', (count) => {
    const [table, codes] = [fourBitTables.nf4, randomBytes(Math.ceil(count / 2))]
    const scales = randomScales(Math.ceil(count / blockSize))
    const wanted = Float32Array.from({ length: count }, (_, i) => {
      const byte = codes[i >> 1]!
      return table[i % 2 === 0 ? byte >> 4 : byte & 15]! * scales[Math.floor(i / blockSize)]!
    })
    const found = new Float32Array(count).fill(NaN)
    unpackFourBit(table, codes, { scales, blockSize }, found)
    expectSame(found, wanted)
  })

  test.each(counts)('%i codes of 8 bits', (count) => {
    const [map, codes] = [dynamicMap(true), randomBytes(count)]
    const scales = randomScales(Math.ceil(count / blockSize))
    for (const offset of [-0, 0.1]) {
      const wanted = Float32Array.from({ length: count }, (_, i) => {
        return Math.fround(map[codes[i]!]! * scales[Math.floor(i / blockSize)]!) + Math.fround(offset)
      })
      const found = new Float32Array(count).fill(NaN)
      unpackEightBit(map, codes, { scales, blockSize, offset }, found)
      expectSame(found, wanted)
    }
  })
})
