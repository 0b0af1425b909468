import { quantizeNBits } from './nbit.ts'
import { describe, expect, test } from 'vitest'
import { f32ToBf16, f32ToF16 } from '../util/dtype.ts'
import { fillNormal, stream } from '../util/random.ts'
import { elements } from '../util/shape.ts'
import { quantizeFourBit } from './fourbit.ts'
import { fedPart, storageBytes, storedBytes, unpackRow, weightParts, widened } from './formats.ts'
import { quantizeQ6 } from './gguf/quantize.fixture.ts'
import { quantizeBlocks } from './gguf/quantize.ts'
import { emptySplit, splitBlocks } from './gguf/split.ts'
import { quantizeInt8 } from './int8.ts'
import { rowReader } from './rows.ts'
import { sliceFloats, sliceIntegers } from './slices.ts'
import { isFloat, kindOf, type Storage, type StorageKind, type StoredWeight } from './stored.ts'

/*
 * What every format of stored weights promises.
 */

/** Makes a weight of each format from the same values. */
const made: Record<string, (data: Float32Array, shape: readonly number[]) => StoredWeight> = {
  F32: (data, shape) => ({ storage: 'F32', shape, data }),
  BF16: (data, shape) => ({ storage: 'BF16', shape, data: f32ToBf16(data) }),
  F16: (data, shape) => ({ storage: 'F16', shape, data: f32ToF16(data) }),
  int8: (data, shape) => ({
    storage: { kind: 'int8' },
    shape,
    ...quantizeInt8(data, shape[0] ?? 0, shape[1] ?? 0),
  }),
  Q8_0: (data, shape) => ({ storage: { kind: 'blocks', type: 'Q8_0' }, shape, bytes: quantizeBlocks('Q8_0', data) }),
  'Q8_0, codes and scales apart': (data, shape) => {
    const blocks = emptySplit('Q8_0', shape[0] ?? 0, shape[1] ?? 0)
    splitBlocks('Q8_0', quantizeBlocks('Q8_0', data), blocks, 0)
    return { storage: { kind: 'split', type: 'Q8_0' }, shape, blocks }
  },
  'Q6_K, codes and scales apart': (data, shape) => {
    const blocks = emptySplit('Q6_K', shape[0] ?? 0, shape[1] ?? 0)
    splitBlocks('Q6_K', quantizeQ6(data), blocks, 0)
    return { storage: { kind: 'split', type: 'Q6_K' }, shape, blocks }
  },
  ...Object.fromEntries(
    ([8, 4] as const).map((bits) => [
      `integers of ${bits} bits`,
      (data: Float32Array, shape: readonly number[]): StoredWeight => {
        return { storage: { kind: 'nbit', bits }, shape, numbers: quantizeNBits(data, shape, bits) }
      },
    ]),
  ),
  ...Object.fromEntries(
    [true, false].flatMap((doubleQuant) =>
      ([64, 1024] as const).map((blockSize) => [
        `nf4, blocks of ${blockSize}${doubleQuant ? ', double' : ''}`,
        (data: Float32Array, shape: readonly number[]): StoredWeight => {
          const format = { quantType: 'nf4', blockSize, doubleQuant } as const
          return { storage: { kind: '4bit', ...format }, shape, packed: quantizeFourBit(data, format) }
        },
      ]),
    ),
  ),
}

/** Cut from floats, and from rows of integers. */
for (const orders of [1, 2] as const) {
  made[`slices in ${orders} order`] = (data, shape) => {
    return { storage: { kind: 'slices', low: true, orders }, shape, slices: sliceFloats(data, shape, orders) }
  }
  made[`one slice in ${orders} order`] = (data, shape) => {
    const { data: integers, scale } = quantizeInt8(data, shape[0] ?? 0, shape[1] ?? 0)
    const scales = scale.map((one) => one / 127)
    const slices = sliceIntegers(integers, scales, shape, orders)
    return { storage: { kind: 'slices', low: false, orders }, shape, slices }
  }
}

const shapes = [
  [6, 64],
  [3, 33],
  [129, 40],
  [4, 512],
]

function values(shape: readonly number[]): Float32Array {
  const data = new Float32Array(elements(shape))
  fillNormal(data, 0, 0.1, stream(1, 'weights'))
  return data
}

test('every format is among those tried', () => {
  const kinds = Object.values(made).map((make) => kindOf(make(values([2, 256]), [2, 256]).storage))
  const all: Record<StorageKind, true> = {
    float: true,
    int8: true,
    '4bit': true,
    blocks: true,
    split: true,
    nbit: true,
    slices: true,
  }
  expect(new Set(kinds)).toEqual(new Set(Object.keys(all)))
})

describe.each(Object.entries(made))('%s', (name, make) => {
  // Rows of blocks are whole numbers of them.
  test.each(
    shapes.filter(([, width = 0]) => !name.startsWith('Q') || width % (name.startsWith('Q6') ? 256 : 32) === 0),
  )('%i x %i: takes what was planned, and is fed what was declared', (...shape) => {
    const data = values(shape)
    const weight = make(data, shape)
    const storage: Storage = weight.storage
    expect(storedBytes(weight)).toBe(storageBytes(storage, shape))

    const wide = widened(weight)
    expect(wide).toMatchObject({ storage: 'F32', shape })
    expect(wide.data).toHaveLength(data.length)
    // Half a step of the coarsest format.
    const largest = data.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    wide.data.forEach((value, i) => expect(Math.abs(value - data[i]!)).toBeLessThanOrEqual(0.2 * largest))

    const [rows, width] = shape
    if (isFloat(weight) || name.startsWith('Q')) {
      const row = new Float32Array(width ?? 0)
      unpackRow(weight, 1, row)
      expect(row).toEqual(wide.data.subarray(width ?? 0, 2 * (width ?? 0)))
    } else expect(() => unpackRow(weight, (rows ?? 0) - 1, new Float32Array(width ?? 0))).toThrow('are gathered')

    const read = rowReader(weight)
    for (const [start, end] of [
      [0, rows ?? 0],
      [1, 2],
      [(rows ?? 0) - 2, rows ?? 0],
    ] as const) {
      const some = new Float32Array((end - start) * (width ?? 0)).fill(NaN)
      read({ start, end }, some)
      expect(some).toEqual(wide.data.subarray(start * (width ?? 0), end * (width ?? 0)))
    }

    const parts = weightParts(storage, shape)
    expect(new Set(parts.map(({ suffix }) => suffix)).size).toBe(parts.length)
    for (const part of parts) {
      const fed = fedPart(weight, part)
      const count = elements(part.shape)
      if ('data' in fed) {
        const arrays = { f32: Float32Array, u16: Uint16Array, i8: Int8Array, u8: Uint8Array }
        expect(fed.data).toBeInstanceOf(arrays[part.dtype])
        expect(fed.data).toHaveLength(count)
      } else {
        expect([part.dtype, fed.count]).toEqual(['f32', count])
        const memory = new Float32Array(count).fill(NaN)
        fed.fill(memory)
        if (part.part === 'unpacked') expect(memory).toEqual(wide.data)
        else expect(memory.every(Number.isFinite)).toBe(true)
      }
    }
  })
})

test('a large weight in 16 bits is fed in slices of rows that make the whole', () => {
  const shape = [5, 2 ** 21]
  const data = new Uint16Array(elements(shape)).map((_, i) => i)
  const weight: StoredWeight = { storage: 'BF16', shape, data }
  const parts = weightParts('BF16', shape)
  expect(parts.map(({ rows }) => rows)).toEqual([
    { start: 0, end: 1 },
    { start: 1, end: 3 },
    { start: 3, end: 5 },
  ])
  const fed = parts.map((part) => {
    const one = fedPart(weight, part)
    return 'data' in one ? Buffer.from(one.data.buffer, one.data.byteOffset, one.data.byteLength) : Buffer.alloc(0)
  })
  expect(Buffer.compare(Buffer.concat(fed), Buffer.from(data.buffer))).toBe(0)
})
