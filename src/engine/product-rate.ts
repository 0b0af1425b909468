import { b } from '../graph/build.ts'
import { program } from '../graph/program.ts'
import { f32Tensor, Runtime } from './onnxruntime/runtime.ts'
import type { LinearShape } from './product-probe.ts'

/** Runs that each shape is tried for. */
const tries = 15

interface ProductRate {
  /** The best rate now, in floating point operations a second. */
  readonly measure: () => Promise<number>
  readonly close: () => Promise<void>
}

/**
 * The best rate, in floating point operations a second, that this machine reaches in products [rows, inFeatures] x [outFeatures, inFeatures]T
 * in f32, over all shapes given: what bounds a step of training.
 */
export async function productRate(
  shapes: readonly LinearShape[],
  options: { readonly rows: number; readonly threads: number },
): Promise<number> {
  const rate = openProductRate(shapes, options)
  try {
    return await rate.measure()
  } finally {
    await rate.close()
  }
}

/** The same, for those who measure it again and again. */
export function openProductRate(
  shapes: readonly LinearShape[],
  { rows, threads }: { readonly rows: number; readonly threads: number },
): ProductRate {
  const runtime = new Runtime({ threads })
  const products = shapes.map(({ inFeatures: k, outFeatures: n }) => {
    const x = b.input('x', { dtype: 'f32', shape: [rows, k] })
    const w = b.input('w', { dtype: 'f32', shape: [n, k] })
    // The sum keeps the result inside: copying it out is not part of the product.
    const product = program({
      name: 'product',
      inputs: [
        { name: 'x', value: x },
        { name: 'w', value: w },
      ],
      outputs: [{ name: 'sum', value: b.reduceSum(b.linear(x, w), [0, 1]) }],
    })
    const feeds = {
      x: f32Tensor(new Float32Array(rows * k).fill(0.5), [rows, k]),
      w: f32Tensor(new Float32Array(n * k).fill(0.5), [n, k]),
    }
    return { product, feeds, flops: 2 * rows * n * k }
  })
  const measure = async (): Promise<number> => {
    let best = 0
    for (const { product, feeds, flops } of products) {
      const seconds: number[] = []
      for (let i = 0; i < tries; i++) {
        const start = performance.now()
        await runtime.run(product, feeds)
        seconds.push((performance.now() - start) / 1000)
      }
      const median = seconds.toSorted((one, other) => one - other)[tries >> 1] ?? Infinity
      best = Math.max(best, flops / median)
    }
    return best
  }
  return { measure, close: () => runtime.close() }
}
