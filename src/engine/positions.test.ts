import { expect, test } from 'vitest'
import { positionFeeds } from './positions.ts'
import { floats } from './onnxruntime/runtime.ts'

/** Angles that tell their position. */
const rope = (positions: number) => ({
  cos: Float32Array.from({ length: positions }, (_, t) => t),
  sin: Float32Array.from({ length: positions }, (_, t) => -t),
})
const options = { parts: 2, headDim: 2, rope }

/** Which keys each query of each row sees, as text: `x` where the mask lets it. */
function seen(feeds: ReturnType<typeof positionFeeds>): string[] {
  return [0, 1].flatMap((part) => {
    const mask = feeds[`mask.${part}`]!
    const [, , , queries = 0, keys = 0] = mask.shape
    const values = floats(mask)
    return Array.from({ length: (mask.shape[0] ?? 0) * queries }, (_, row) =>
      Array.from(values.subarray(row * keys, (row + 1) * keys), (value) => (value === 0 ? 'x' : '.')).join(''),
    )
  })
}

test('rows of one example: one causal mask for all', () => {
  const feeds = positionFeeds({ batch: 2, seq: 4, starts: Int32Array.of(0, 4) }, options)
  expect([...floats(feeds['cos'])]).toEqual([0, 1, 2, 3, 0, 1, 2, 3])
  expect(feeds['mask.0']?.shape).toEqual([1, 1, 1, 2, 2])
  expect(feeds['mask.1']?.shape).toEqual([1, 1, 1, 2, 4])
  expect(seen(feeds)).toEqual(['x.', 'xx', 'xxx.', 'xxxx'])
})

test('packed rows: positions begin anew, and each position sees its own example', () => {
  const feeds = positionFeeds({ batch: 2, seq: 5, starts: Int32Array.of(0, 2, 4, 5) }, options)
  expect([...floats(feeds['cos'])]).toEqual([0, 1, 0, 1, 0, 0, 1, 2, 3, 4])
  expect([...floats(feeds['sin'])].map(Math.abs)).toEqual([0, 1, 0, 1, 0, 0, 1, 2, 3, 4])
  expect(feeds['mask.1']?.shape).toEqual([2, 1, 1, 3, 5])
  expect(seen(feeds)).toEqual(['x.', 'xx', 'x.', 'xx', '..x..', '..xx.', '....x', 'xxx..', 'xxxx.', 'xxxxx'])
})
