import { expect, test } from 'vitest'
import { positionFeeds } from './positions.ts'
import { PositionCache } from './position-cache.ts'
import { floats } from './onnxruntime/runtime.ts'

/** Angles that show their position. */
const rope = {
  width: 1,
  tables: (positions: number) => ({
    cos: Float32Array.from({ length: positions }, (_, t) => t),
    sin: Float32Array.from({ length: positions }, (_, t) => -t),
  }),
}
const two = { rows: 2, trees: 2 }
const whole = { rope, window: undefined }
const single = { batch: 2, seq: 4, starts: Int32Array.of(0, 4), lengths: Int32Array.of(4, 3) }
const packed = { batch: 2, seq: 5, starts: Int32Array.of(0, 2, 4, 5), lengths: Int32Array.of(2, 2, 1, 5) }

/** Which keys each query of each row sees, as text: `x` where the mask lets it. */
function seen(feeds: ReturnType<typeof positionFeeds>): string[] {
  return [0, 1].flatMap((part) => {
    const mask = feeds[`mask.${part}`]!
    const [, , queries = 0, keys = 0] = mask.shape
    const values = floats(mask)
    return Array.from({ length: (mask.shape[0] ?? 0) * queries }, (_, row) =>
      Array.from(values.subarray(row * keys, (row + 1) * keys), (value) => (value === 0 ? 'x' : '.')).join(''),
    )
  })
}

test('rows of one example: one causal mask for all', () => {
  const feeds = positionFeeds(single, whole, two)
  expect([...floats(feeds['cos'])]).toEqual([0, 1, 2, 3, 0, 1, 2, 3])
  expect(feeds['mask.0']?.shape).toEqual([1, 1, 2, 2])
  expect(feeds['mask.1']?.shape).toEqual([1, 1, 2, 4])
  expect(seen(feeds)).toEqual(['x.', 'xx', 'xxx.', 'xxxx'])
})

test('packed rows: positions begin again, and each position sees its own example', () => {
  const feeds = positionFeeds(packed, whole, two)
  expect([...floats(feeds['cos'])]).toEqual([0, 1, 0, 1, 0, 0, 1, 2, 3, 4])
  expect([...floats(feeds['sin'])].map(Math.abs)).toEqual([0, 1, 0, 1, 0, 0, 1, 2, 3, 4])
  expect(feeds['mask.1']?.shape).toEqual([2, 1, 3, 5])
  expect(seen(feeds)).toEqual(['x.', 'xx', 'x.', 'xx', '..x..', '..xx.', '....x', 'xxx..', 'xxxx.', 'xxxxx'])
})

test('a window: each position sees so many, and none of another example', () => {
  expect(seen(positionFeeds(single, { rope, window: 2 }, two))).toEqual(['x.', 'xx', '.xx.', '..xx'])
  const feeds = positionFeeds(packed, { rope: undefined, window: 2 }, two)
  expect(feeds['cos']).toBeUndefined()
  expect(seen(feeds)).toEqual(['x.', 'xx', 'x.', 'xx', '..x..', '..xx.', '....x', '.xx..', '..xx.', '...xx'])
})

test('angles may depend on the length of an example, without its padding', () => {
  const tables = (positions: number, length: number) => {
    const angles = Float32Array.from({ length: positions }, (_, t) => t * length)
    return { cos: angles, sin: angles }
  }
  const feeds = positionFeeds(
    single,
    { rope: { width: 1, regime: (length: number) => length, tables }, window: undefined },
    two,
  )
  expect([...floats(feeds['cos'])]).toEqual([0, 4, 8, 12, 0, 3, 6, 9])
  const cache = new PositionCache(
    [{ rope: { width: 1, regime: (length: number) => length, tables }, window: undefined }],
    two,
  )
  expect([...floats(cache.of(single)(0)['cos'])]).toEqual([0, 4, 8, 12, 0, 3, 6, 9])
  const others = { ...single, lengths: Int32Array.of(1, 2) }
  expect([...floats(cache.of(others)(0)['cos'])]).toEqual([0, 1, 2, 3, 0, 2, 4, 6])
})

test('rows that share what they begin with: each example sees its path, at the positions that it has alone', () => {
  // Three tokens; two of them and two more; those four and one more; then another example.
  const tree = {
    batch: 1,
    seq: 8,
    starts: Int32Array.of(0, 3, 5, 6),
    lengths: Int32Array.of(3, 4, 5, 2),
    shared: Int32Array.of(0, 2, 4, 0),
  }
  const feeds = positionFeeds(tree, whole, two)
  expect([...floats(feeds['cos'])]).toEqual([0, 1, 2, 2, 3, 4, 0, 1])
  expect(seen(feeds)).toEqual(['x...', 'xx..', 'xxx.', 'xx.x', 'xxxx...', 'xxxxx..', '.....x.', '.....xx'])
  // What no query of the second part sees is left out: the place 2, and, of a window, 0.
  expect(feeds['cut.1']?.data).toEqual(BigInt64Array.of(2n, 1n, 5n, 0n))
  const near = positionFeeds(tree, { rope, window: 3 }, two)
  expect(seen(near)).toEqual(['x...', 'xx..', 'xxx.', 'xx.x', 'x.xx...', '..xxx..', '.....x.', '.....xx'])
})
