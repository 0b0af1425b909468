import { expect, test } from 'vitest'
import { b } from '../graph/build.ts'
import { gradients } from '../graph/grad.ts'
import { topological, type OpName } from '../graph/value.ts'
import type { Storage } from '../storage/stored.ts'
import { storedValue } from './stored-values.ts'

/** What makes the weight of a slice what it is computed with. */
const makers: ReadonlySet<OpName> = new Set<OpName>(['decode', 'toFloat', 'sixBits'])

// Where both products read one value, the f32 form of every slice of a large head lives from one to the other.
test.each<[string, Storage, number]>([
  ['BF16', 'BF16', 1],
  ['F16', 'F16', 1],
  ['Q8_0', { kind: 'split', type: 'Q8_0' }, 2],
  ['Q6_K', { kind: 'split', type: 'Q6_K' }, 3],
])('a slice in %s is decoded once more for the gradient', (_name, storage, ops) => {
  const { slices } = storedValue('w', [4096, 2048], storage)
  expect(slices).toHaveLength(2)
  const [weight] = slices
  if (weight === undefined) throw new Error('no slice')
  const x = b.input('x', { dtype: 'f32', shape: ['rows', 2048] })
  const y = b.linear(x, weight)
  const [dx] = gradients([{ value: y, cotangent: y }], [x])
  if (dx === undefined) throw new Error('no gradient')
  const made = topological([y, dx], new Set()).filter(({ op }) => makers.has(op))
  expect(made).toHaveLength(2 * ops)
})
