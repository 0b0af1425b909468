import { describe, expect, test } from 'vitest'
import { f32ToF16 } from '../util/dtype.ts'
import { fillUniform, stream } from '../util/random.ts'
import { widened } from './formats.ts'
import { type BlockType, layoutOf } from './gguf/index.ts'
import { emptySplit, splitBlocks } from './gguf/split.ts'
import { inNBits, joinRows } from './in-nbits.ts'
import { quantizeInt8 } from './int8.ts'
import { dequantizeNBits, nBitBlock } from './nbit.ts'
import type { F32Weight, StoredWeight } from './stored.ts'

const shape = [6, 96] as const

function random(count: number, name: string): Float32Array {
  const values = new Float32Array(count)
  fillUniform(values, -1, 1, stream(1, name))
  return values
}

/** Blocks of any codes, with finite scales. */
function blocks(type: BlockType): StoredWeight {
  const { blockElements, blockBytes } = layoutOf(type)
  const count = (shape[0] * shape[1]) / blockElements
  const bytes = Uint8Array.from(random(count * blockBytes, type), (one) => (one + 1) * 127.9)
  const scales = f32ToF16(random(count, `scales of ${type}`))
  const view = new DataView(bytes.buffer)
  scales.forEach((scale, block) => view.setUint16(block * blockBytes, scale, true))
  return { storage: { kind: 'blocks', type }, shape, bytes }
}

function split(): StoredWeight {
  const whole = blocks('Q8_0')
  const made = emptySplit('Q8_0', ...shape)
  if ('bytes' in whole) splitBlocks('Q8_0', whole.bytes, made, 0)
  return { storage: { kind: 'split', type: 'Q8_0' }, shape, blocks: made }
}

function floats([rows, columns]: readonly [number, number] = shape): F32Weight {
  return { storage: 'F32', shape: [rows, columns], data: random(rows * columns, 'floats') }
}

describe('integers with the same blocks are kept', () => {
  test.each([
    ['Q8_0', 8, blocks('Q8_0')],
    ['Q8_0, apart', 8, split()],
    ['Q4_0', 8, blocks('Q4_0')],
    ['Q4_0', 4, blocks('Q4_0')],
  ] as const)('%s in %i bits', (_, bits, weight) => {
    const { data } = widened(weight)
    expect(data.some((one) => one !== 0)).toBe(true)
    expect(dequantizeNBits(inNBits(weight, bits).numbers, shape, bits)).toEqual(data)
  })

  test('LLM.int8, also where rows are no whole blocks', () => {
    for (const own of [shape, [5, 45]] as const) {
      const [rows, columns] = own
      const weight: StoredWeight = {
        storage: { kind: 'int8' },
        shape: own,
        ...quantizeInt8(floats(own).data, rows, columns),
      }
      const { data } = widened(weight)
      const found = dequantizeNBits(inNBits(weight, 8).numbers, own, 8)
      // Once rounded instead of twice.
      found.forEach((value, i) => expect(Math.abs(value - data[i]!)).toBeLessThanOrEqual(Math.abs(data[i]!) * 2 ** -22))
    }
  })
})

describe('what has no integers of its own, or more bits, is rounded', () => {
  test.each([
    ['floats', 8, floats()],
    ['floats', 4, floats()],
    ['rows that are no whole blocks', 8, floats([5, 45])],
    ['rows that are no whole blocks', 4, floats([5, 45])],
    ['Q8_0', 4, blocks('Q8_0')],
    ['Q8_0, apart', 4, split()],
    ['Q5_0', 8, blocks('Q5_0')],
  ] as const)('%s in %i bits', (_, bits, weight) => {
    const { data } = widened(weight)
    const [rows = 0, columns = 0] = weight.shape
    const { numbers } = inNBits(weight, bits)
    const found = dequantizeNBits(numbers, weight.shape, bits)
    const ofRow = Math.ceil(columns / nBitBlock)
    let exact = 0
    for (let i = 0; i < rows * columns; i++) {
      const [row, column] = [Math.floor(i / columns), i % columns]
      const scale = Math.abs(numbers.scales[row * ofRow + Math.floor(column / nBitBlock)]!)
      const error = Math.abs(found[i]! - data[i]!)
      // Half a step; 4 bits reach from -8 to 7 only.
      expect(error, `${i}`).toBeLessThanOrEqual(scale * (bits === 8 ? 0.5001 : 1.0001))
      if (error === 0) exact++
    }
    expect(exact).toBeLessThan(rows * columns)
  })
})

test.each([8, 4] as const)('joined weights of %i bits have the rows of each, one after the other', (bits) => {
  const weights = [floats(), floats([3, 96]), floats([1, 96])].map((weight) => inNBits(weight, bits))
  const whole = joinRows(weights)
  expect(whole.shape).toEqual([10, 96])
  expect([...widened(whole).data]).toEqual(weights.flatMap((weight) => [...widened(weight).data]))
})
