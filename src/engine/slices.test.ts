import { afterAll, describe, expect, test } from 'vitest'
import { b } from '../graph/build.ts'
import { program } from '../graph/program.ts'
import { storedValue } from '../model/stored-values.ts'
import { fedPart } from '../storage/formats.ts'
import { inSlices, slicedAs } from '../storage/in-slices.ts'
import { quantizeInt8 } from '../storage/int8.ts'
import type { StoredWeight } from '../storage/stored.ts'
import { fillNormal, stream } from '../util/random.ts'
import { f32Tensor, floats, type HostTensor, Runtime } from './onnxruntime/runtime.ts'
import { integerProductsAreExact } from './product-probe.ts'

const runtimes = {
  'fast products': new Runtime({ threads: 2 }),
  'products of unsigned integers': new Runtime({ threads: 2, unsignedIntegers: true }),
}
afterAll(async () => {
  for (const runtime of Object.values(runtimes)) await runtime.close()
})

const [k, n] = [192, 160]

/** x wT and dy w, of a weight in slices. */
async function products(
  runtime: Runtime,
  weight: StoredWeight,
  { x, dy, rows }: { readonly x: Float32Array; readonly dy: Float32Array; readonly rows: number },
): Promise<readonly [Float32Array, Float32Array]> {
  const { inputs, slices } = storedValue('w', [n, k], weight.storage)
  const given = {
    x: b.input('x', { dtype: 'f32', shape: ['batch', 'seq', k] }),
    dy: b.input('dy', { dtype: 'f32', shape: ['batch', 'seq', n] }),
  }
  const target = program({
    name: 'products',
    inputs: [
      ...Object.entries(given).map(([name, value]) => ({ name, value })),
      ...inputs.map(({ port, value }) => ({ name: port, value })),
    ],
    outputs: [
      { name: 'y', value: b.linear(given.x, slices[0]!) },
      { name: 'dx', value: b.linear(given.dy, slices[0]!, { transposed: false }) },
    ],
  })
  const feeds: Record<string, HostTensor> = {
    x: f32Tensor(x, [1, rows, k]),
    dy: f32Tensor(dy, [1, rows, n]),
  }
  for (const input of inputs) {
    const fed = fedPart(weight, input)
    if ('data' in fed) feeds[input.port] = { dtype: input.dtype, shape: input.shape, data: fed.data }
  }
  const { y, dx } = await runtime.run(target, feeds)
  return [floats(y), floats(dx)]
}

const normal = (count: number, name: string): Float32Array => {
  const data = new Float32Array(count)
  fillNormal(data, 0, 1, stream(7, name))
  return data
}
const float = (data: Float32Array): StoredWeight => ({ storage: 'F32', shape: [n, k], data })
const sliced = (weight: StoredWeight, orders: 1 | 2): StoredWeight => inSlices(weight, slicedAs(weight.storage, orders))

/** Inputs of `rows` rows of `width` whose products are hard to add up. */
const kinds: Readonly<Record<string, (rows: number, width: number) => Float32Array>> = {
  normal: (rows, width) => normal(rows * width, 'normal'),
  'one channel a thousand times the rest': (rows, width) =>
    normal(rows * width, 'heavy').map((value, i) => (i % width === 5 ? 1000 * value : value)),
  constant: (rows, width) => new Float32Array(rows * width).fill(0.3),
  tiny: (rows, width) => normal(rows * width, 'tiny').map((value) => 1e-12 * value),
  'rows of zeros between others': (rows, width) =>
    normal(rows * width, 'zeros').map((value, i) => (Math.floor(i / width) % 2 === 0 ? 0 : value)),
}

/**
 * An element is off by no more than the rounding of both operands to the last slice, and the product of the last slices, which is left out:
 * each is 1 / (127 * 254 * 2) of the largest magnitudes of their rows, for each term of the sum.
 */
const unit = 1 / (127 * 254 * 2)

function expectClose(
  found: Float32Array,
  {
    x,
    w,
    rows,
    outer,
    inner,
    wAt,
  }: {
    readonly x: Float32Array
    readonly w: Float32Array
    readonly rows: number
    readonly outer: number
    readonly inner: number
    readonly wAt: (out: number, i: number) => number
  },
): void {
  let [errors, squares] = [0, 0]
  for (let row = 0; row < rows; row++) {
    let largest = 0
    for (let i = 0; i < inner; i++) largest = Math.max(largest, Math.abs(x[row * inner + i]!))
    for (let out = 0; out < outer; out++) {
      let [exact, size] = [0, 0]
      for (let i = 0; i < inner; i++) {
        const weight = w[wAt(out, i)]!
        exact += x[row * inner + i]! * weight
        size += Math.abs(x[row * inner + i]!) + largest * Math.abs(weight)
      }
      const error = Math.abs(found[row * outer + out]! - exact)
      expect(error).toBeLessThanOrEqual(1e-30 + 3 * unit * 5 * largest * Math.max(size, inner))
      errors += error ** 2
      squares += exact ** 2
    }
  }
  if (squares > 0) expect(Math.sqrt(errors / squares)).toBeLessThan(3e-4)
  else expect(errors).toBe(0)
}

/** Where they are not, nothing computes with them. */
const exact = await integerProductsAreExact(2)
const used = Object.entries(runtimes).filter(([name]) => exact || name !== 'fast products')

test('products of unsigned integers are exact on every machine', async () => {
  expect(await integerProductsAreExact(2, { unsigned: true })).toBe(true)
})

describe.each(used)('%s', (_runtime, runtime) => {
  test.each(Object.entries(kinds).flatMap(([kind, make]) => [1, 6].map((rows) => ({ kind, rows, make }))))(
    '$kind, $rows rows: products in slices are those in f64 to 3e-4',
    async ({ rows, make }) => {
      const [x, dy, w] = [make(rows, k), make(rows, n), normal(n * k, 'weight')]
      const [y, dx] = await products(runtime, sliced(float(w), 2), { x, dy, rows })
      expectClose(y, { x, w, rows, outer: n, inner: k, wAt: (out, i) => out * k + i })
      expectClose(dx, { x: dy, w, rows, outer: k, inner: n, wAt: (out, i) => i * k + out })
      // What a program transposes is the same numbers.
      expect(await products(runtime, sliced(float(w), 1), { x, dy, rows })).toEqual([y, dx])
    },
  )

  test('weights of rows of zeros, and of one channel a thousand times the rest', async () => {
    const w = normal(n * k, 'weight').map((value, i) =>
      Math.floor(i / k) === 3 ? 0 : i % k === 9 ? 1000 * value : value,
    )
    const [x, dy, rows] = [normal(4 * k, 'x'), normal(4 * n, 'dy'), 4]
    const [y, dx] = await products(runtime, sliced(float(w), 2), { x, dy, rows })
    expect([...y, ...dx].every(Number.isFinite)).toBe(true)
    for (let row = 0; row < rows; row++) expect(y[row * n + 3]).toBe(0)
    const exact = Array.from({ length: n }, (_, out) =>
      x.slice(0, k).reduce((sum, value, i) => sum + value * w[out * k + i]!, 0),
    )
    const size = Math.sqrt(exact.reduce((sum, value) => sum + value ** 2, 0))
    const off = Math.sqrt(exact.reduce((sum, value, out) => sum + (y[out]! - value) ** 2, 0))
    expect(off / size).toBeLessThan(3e-4)
  })

  test('a base in rows of 8-bit integers loses nothing but the rounding of its input', async () => {
    const { data, scale } = quantizeInt8(normal(n * k, 'weight'), n, k)
    const weight: StoredWeight = { storage: { kind: 'int8' }, shape: [n, k], data, scale }
    const [x, dy, rows] = [normal(4 * k, 'x'), normal(4 * n, 'dy'), 4]
    const [y] = await products(runtime, sliced(weight, 2), { x, dy, rows })
    for (let row = 0; row < rows; row++) {
      const largest = x.subarray(row * k, (row + 1) * k).reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      for (let out = 0; out < n; out++) {
        let [exact, size] = [0, 0]
        for (let i = 0; i < k; i++) {
          const w = (data[out * k + i]! * scale[out]!) / 127
          exact += x[row * k + i]! * w
          size += Math.abs(w)
        }
        // Half a step of the last slice of x for each term; and the rounding of the sum itself.
        expect(Math.abs(y[row * n + out]! - exact)).toBeLessThan(unit * largest * size + 1e-6 * largest * size)
      }
    }
  })
})
