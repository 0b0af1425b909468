import { expect, test } from 'vitest'
import { b } from './build.ts'
import { arenaBytes, heapBytes } from './footprint.ts'
import { ops } from './ops/index.ts'
import type { OpMemory } from './ops/definition.ts'
import { program } from './program.ts'
import type { Value } from './value.ts'

const x = b.input('x', { dtype: 'f32', shape: [1, 4] })
const bits = b.input('bits', { dtype: 'u16', shape: [8, 4] })
const codes = b.input('codes', { dtype: 'u8', shape: [16] })
const scales = b.input('scales', { dtype: 'f32', shape: [1] })
const packed = b.fourBitWeight(codes, scales, { quantType: 'nf4', blockSize: 32, rows: 8, columns: 4 })
const slices = [b.input('high', { dtype: 'i8', shape: [4, 8] }), b.input('both', { dtype: 'i8', shape: [8, 8] })]
const rowScales = b.input('row scales', { dtype: 'f32', shape: [8] })
const sliced = b.slicedWeight(rowScales, slices, { rows: 8, columns: 4, low: true, orders: 1 })
const shaped = b.reshape(b.silu(x), [4, 1])

type Kind = Extract<OpMemory, string> | 'scratch'

/** A program whose last result is the caller's, with an op of each kind before it, and the bytes that the others take at most. */
const programs: Readonly<Record<Kind, readonly [y: Value, bytes: number]>> = {
  // Two results of 4 elements live at once.
  own: [b.exp(b.silu(b.silu(x))), 2 * 16],
  // 32 elements in f32, and their bits as bf16.
  scratch: [b.linear(x, b.decode(bits, 'bf16')), 32 * 4 + 32 * 2],
  // Its operand lives as long as it does, beside the result of the op after it.
  view: [b.mul(b.silu(shaped), shaped), 2 * 16],
  free: [b.add(x, b.constant(1)), 0],
  // 32 elements in f32, while the product reads them.
  packed: [b.linear(x, packed), 32 * 4],
  // x and a half of it, and a second result of 8 elements.
  sliced: [b.linear(x, sliced), 1.5 * 16 + 32],
}

test.each(Object.entries(programs))('memory of an op that is said to take it so: %s', (_kind, [y, bytes]) => {
  const inputs = Object.entries({
    x,
    bits,
    codes,
    scales,
    high: slices[0]!,
    both: slices[1]!,
    'row scales': rowScales,
  }).map(([name, value]) => ({ name, value }))
  expect(heapBytes(program({ name: 'p', inputs, outputs: [{ name: 'y', value: y }] }), {})).toEqual({
    kept: bytes,
    mapped: 0,
  })
})

test('every kind is that of an op', () => {
  const kinds = Object.values(ops).map(({ memory }) => (typeof memory === 'string' ? memory : 'scratch'))
  expect(new Set(kinds)).toEqual(new Set(Object.keys(programs)))
})

// It runs what is read last first: the wide result is gone before the narrow ones are made, though it was written after them.
test('nodes take memory in the order in which ONNX Runtime runs them', () => {
  const narrow = b.silu(b.exp(x))
  const wide = b.reduceSum(b.exp(b.linear(x, b.decode(bits, 'bf16'))), [0, 1])
  const y = b.add(narrow, wide)
  const inputs = Object.entries({ x, bits }).map(([name, value]) => ({ name, value }))
  const { kept } = heapBytes(program({ name: 'p', inputs, outputs: [{ name: 'y', value: y }] }), {})
  expect(kept).toBe(32 * 4 + 32 * 2)
})

test('an arena keeps what runs of one size leave, into which larger tensors do not fit', () => {
  const rows = b.input('rows', { dtype: 'f32', shape: ['rows', 4096] })
  const y = b.exp(b.silu(b.silu(rows)))
  const runs = program({ name: 'p', inputs: [{ name: 'rows', value: rows }], outputs: [{ name: 'y', value: y }] })
  const [few, many] = [{ rows: 40 }, { rows: 200 }]
  expect(arenaBytes(runs, many, few)).toBe(arenaBytes(runs, many))
  expect(arenaBytes(runs, few, many)).toBe(arenaBytes(runs, few) + arenaBytes(runs, many))
})
