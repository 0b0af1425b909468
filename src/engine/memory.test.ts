import { expect, test } from 'vitest'
import { StackMemory } from './memory.ts'

test('what is taken does not overlap; what a mark gives back is taken again', () => {
  const memory = new StackMemory()
  const first = memory.floats(3)
  const height = memory.mark
  const second = memory.bytes(70)
  const third = memory.floats(5)
  first.fill(1)
  second.fill(2)
  third.fill(3)
  expect([...first, ...second, ...third]).toEqual([1, 1, 1, ...Array<number>(70).fill(2), 3, 3, 3, 3, 3])
  expect([second.byteOffset % 64, third.byteOffset % 64]).toEqual([0, 0])
  memory.returnTo(height)
  const again = memory.bytes(70)
  expect([again.buffer === second.buffer, again.byteOffset]).toEqual([true, second.byteOffset])
  memory.clear()
  expect(memory.floats(1).byteOffset).toBe(first.byteOffset)
})

test('what no chunk has room for gets one of its own', () => {
  const memory = new StackMemory()
  const small = memory.floats(16)
  const large = memory.floats(2 ** 26 + 1)
  expect(large).toHaveLength(2 ** 26 + 1)
  expect(large.buffer).not.toBe(small.buffer)
  const next = memory.floats(16)
  expect(next.buffer).not.toBe(small.buffer)
  memory.clear()
  expect(memory.floats(16).buffer).toBe(small.buffer)
  expect(memory.floats(2 ** 26 + 1).buffer).toBe(large.buffer)
})

test('chunks grow with what is taken, so that little is not bought with many addresses', () => {
  const memory = new StackMemory()
  const sizes = new Set<ArrayBufferLike>()
  for (let taken = 0; taken < 40; taken++) sizes.add(memory.floats(2 ** 20).buffer)
  const bytes = [...sizes].map(({ byteLength }) => byteLength)
  expect(bytes).toEqual([4, 4, 8, 16, 32, 64, 128].map((megabytes) => megabytes * 2 ** 20))
})
