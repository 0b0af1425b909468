import { b } from '../graph/build.ts'
import { program, type Program } from '../graph/program.ts'
import type { SliceAttributes, Value } from '../graph/value.ts'
import { internalError } from '../util/errors.ts'
import { f32Tensor, floats, type HostTensor, Runtime } from './onnxruntime/runtime.ts'
import { ProgramTimer } from './program-timer.ts'

/** A linear layer: weight [outFeatures, inFeatures]. */
export interface LinearShape {
  readonly inFeatures: number
  readonly outFeatures: number
}

/** A weight as a program is fed it. */
interface FedValue {
  readonly inputs: readonly { readonly port: string; readonly value: Value }[]
  readonly value: Value
}

/** Makes a value of a weight of this shape. */
export type WriteWeight = (shape: readonly number[]) => FedValue

/**
 * How many times as fast as with `one` products with `other` are on this machine, over all shapes: x wT and its gradient, for `rows` rows.
 */
export async function productRatio(
  shapes: readonly LinearShape[],
  { one, other, rows, threads }: { readonly one: WriteWeight; readonly other: WriteWeight } & ProbeSize,
): Promise<number> {
  const timer = new ProgramTimer({ threads, arenas: true })
  try {
    let [ofOne, ofOther] = [0, 0]
    for (const shape of shapes) {
      const [seconds = 0] = await timer.seconds(bothWays(shape, rows, one), [{}])
      const [others = 0] = await timer.seconds(bothWays(shape, rows, other), [{}])
      ofOne += seconds
      ofOther += others
    }
    return ofOne / ofOther
  } finally {
    await timer.close()
  }
}

interface ProbeSize {
  readonly rows: number
  readonly threads: number
}

/** x [rows, in] wT and dy [rows, out] w; sums keep the results inside. */
function bothWays({ inFeatures: k, outFeatures: n }: LinearShape, rows: number, write: WriteWeight): Program {
  const x = b.input('x', { dtype: 'f32', shape: [rows, k] })
  const dy = b.input('dy', { dtype: 'f32', shape: [rows, n] })
  const weight = write([n, k])
  const inputs = weight.inputs.map(({ port, value }) => ({ name: port, value }))
  const sums = [b.linear(x, weight.value), b.linear(dy, weight.value, { transposed: false })]
  return program({
    name: 'products',
    inputs: [{ name: 'x', value: x }, { name: 'dy', value: dy }, ...inputs],
    outputs: sums.map((y, i) => ({ name: `sum ${i}`, value: b.reduceSum(y, [0, 1]) })),
  })
}

/**
 * Whether fast products of 8-bit integers are exact here, or those of `unsigned` ones. Where the processor has no instructions for them (x86
 * without VNNI), sums of two products are cut off at 16 bits by the fast ones.
 */
export async function integerProductsAreExact(
  threads: number,
  { unsigned = false }: { readonly unsigned?: boolean } = {},
): Promise<boolean> {
  const [rows, k, n] = [4, 256, 32]
  const x = b.input('x', { dtype: 'f32', shape: [rows, k] })
  const attributes: SliceAttributes = { rows: n, columns: k, low: false, orders: 1 }
  const [scales, high] = [
    b.input('scales', { dtype: 'f32', shape: [n] }),
    b.input('high', { dtype: 'i8', shape: [k, n] }),
  ]
  const target = program({
    name: 'largest products',
    inputs: Object.entries({ x, scales, high }).map(([name, value]) => ({ name, value })),
    outputs: [{ name: 'y', value: b.linear(x, b.slicedWeight(scales, [high], attributes)) }],
  })
  const runtime = new Runtime({ threads, unsignedIntegers: unsigned })
  try {
    // All of the largest magnitude, with the sign that half of the columns have.
    const feeds: Record<string, HostTensor> = {
      x: f32Tensor(new Float32Array(rows * k).fill(1), [rows, k]),
      scales: f32Tensor(new Float32Array(n).fill(1), [n]),
      high: {
        dtype: 'i8',
        shape: [k, n],
        data: Int8Array.from({ length: k * n }, (_, i) => (i % 2 === 0 ? 127 : -127)),
      },
    }
    const y = floats((await runtime.run(target, feeds))['y'])
    if (y.length !== rows * n) throw internalError('a product of another size')
    return y.every((value, i) => Math.abs(value - (i % 2 === 0 ? 127 : -127) * k) < 1e-4 * 127 * k)
  } finally {
    await runtime.close()
  }
}
