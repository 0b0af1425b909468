import { expect, test } from 'vitest'
import { b } from './build.ts'
import { heapBytes } from './footprint.ts'
import { program } from './program.ts'

const x = b.input('x', { dtype: 'f32', shape: [1, 4] })
const bits = b.input('bits', { dtype: 'u16', shape: [8, 4] })

test('a weight that is decoded is counted with the copy that is made of its bits on the way', () => {
  const y = b.linear(x, b.decode(bits, 'bf16'))
  const inputs = [x, bits].map((value, i) => ({ name: ['x', 'bits'][i]!, value }))
  // 32 elements in f32, and their bits as bf16; y is the caller's.
  expect(heapBytes(program({ name: 'p', inputs, outputs: [{ name: 'y', value: y }] }), {})).toEqual({
    kept: 32 * 4 + 32 * 2,
    mapped: 0,
  })
})
