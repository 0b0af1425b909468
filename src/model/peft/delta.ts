import { type Adapter, loraTensorNames } from './adapter.ts'
import { type Adaptation, readAdapterWeight } from './adapt.ts'
import type { Rows } from '../sources/source.ts'
import type { WeightSpec } from '../weight-specs.ts'
import { elements } from '../../util/shape.ts'

/** An adapter that is added to a base. */
export interface AddedAdapter {
  /** For messages. */
  readonly folder: string
  readonly adapter: Pick<Adapter, 'tensors'>
  readonly adaptation: Adaptation
  /** By what all that it changes is multiplied. */
  readonly scale: number
}

/** What adapters change in one weight, computed in f64 and rounded to f32 once. */
export interface WeightDelta {
  /** Rows `rows` of the weight as it becomes, of what they were: [rows, width] both. A vector is one row. */
  add(before: Float32Array, after: Float32Array, rows: Rows): Promise<void>
}

/** A product of an adapter: factor * B A. */
interface Product {
  readonly factor: number
  readonly r: number
  readonly a: Float32Array
  readonly b: Float32Array
}

/** A weight that an adapter has in full. */
interface Whole {
  readonly scale: number
  readonly read: (rows: Rows) => Promise<Float32Array>
}

/** Whether an adapter changes a weight of the base. */
export function isChanged({ adaptation }: Pick<AddedAdapter, 'adaptation'>, name: string): boolean {
  return adaptation.trainable(name) || (name.endsWith('.weight') && adaptation.adapterOf(moduleOf(name)) !== undefined)
}

/**
 * W + sum of scale_i (alpha_i / r_i) B_i A_i over the adapters, that is, their ranks side by side, which PEFT calls `cat`; of a weight that an
 * adapter has in full, S, what is added is scale (S - W). Undefined where none changes it.
 *
 * @throws LowrankError `adapter`: a tensor is missing, of another shape, or not finite.
 */
export async function deltaOf(
  { name, shape }: WeightSpec,
  adapters: readonly AddedAdapter[],
): Promise<WeightDelta | undefined> {
  const products: Product[] = []
  const wholes: Whole[] = []
  for (const one of adapters) {
    if (!isChanged(one, name)) continue
    if (one.adaptation.trainable(name)) wholes.push(wholeOf(one, { name, shape }))
    else products.push(await productOf(one, { name, shape }))
  }
  if (products.length === 0 && wholes.length === 0) return undefined
  const width = shape.length < 2 ? elements(shape) : elements(shape.slice(1))
  return { add: (before, after, rows) => addRows({ before, after, rows, width }, products, wholes) }
}

async function productOf(
  { adapter: { tensors }, adaptation, folder, scale }: AddedAdapter,
  { name, shape: [out = 0, inner = 0] }: WeightSpec,
): Promise<Product> {
  const path = moduleOf(name)
  const { r = 0, scale: own = 0 } = adaptation.adapterOf(path) ?? {}
  const names = loraTensorNames(path)
  const a = await readAdapterWeight(tensors, { name: names.a, shape: [r, inner], folder })
  const b = await readAdapterWeight(tensors, { name: names.b, shape: [out, r], folder })
  return { factor: scale * own, r, a: a.data, b: b.data }
}

function wholeOf({ adapter: { tensors }, adaptation, folder, scale }: AddedAdapter, spec: WeightSpec): Whole {
  const name = adaptation.fileName(spec.name)
  const isVector = spec.shape.length < 2
  return {
    scale,
    read: async (rows) =>
      (await readAdapterWeight(tensors, { name, shape: spec.shape, folder, ...(isVector ? {} : { rows }) })).data,
  }
}

interface RowsToChange {
  readonly before: Float32Array
  readonly after: Float32Array
  readonly rows: Rows
  readonly width: number
}

async function addRows(
  { before, after, rows, width }: RowsToChange,
  products: readonly Product[],
  wholes: readonly Whole[],
): Promise<void> {
  const given = await Promise.all(wholes.map(({ read }) => read(rows)))
  const [first] = given
  if (first !== undefined && wholes.length === 1 && wholes[0]?.scale === 1 && products.length === 0) {
    after.set(first)
    return
  }
  const sum = new Float64Array(width)
  for (let row = 0; row < rows.end - rows.start; row++) {
    const from = row * width
    const own = before.subarray(from, from + width)
    sum.set(own)
    for (const [i, { scale }] of wholes.entries()) {
      const values = given[i]!
      for (let j = 0; j < width; j++) sum[j] = sum[j]! + scale * (values[from + j]! - own[j]!)
    }
    for (const product of products) addProduct(sum, product, rows.start + row)
    after.set(sum, from)
  }
}

/** Adds row `row` of factor * B A, four ranks at a time: going over the sum costs more than a product. */
function addProduct(sum: Float64Array, { factor, r, a, b }: Product, row: number): void {
  const width = sum.length
  const coefficient = (k: number): number => (k < r ? factor * b[row * r + k]! : 0)
  for (let k = 0; k < r; k += 4) {
    const [b0, b1, b2, b3] = [coefficient(k), coefficient(k + 1), coefficient(k + 2), coefficient(k + 3)]
    const [at0, at1, at2, at3] = [k, Math.min(k + 1, r - 1), Math.min(k + 2, r - 1), Math.min(k + 3, r - 1)].map(
      (rank) => rank * width,
    ) as [number, number, number, number]
    for (let j = 0; j < width; j++) {
      sum[j] = sum[j]! + (b0 * a[at0 + j]! + b1 * a[at1 + j]!) + (b2 * a[at2 + j]! + b3 * a[at3 + j]!)
    }
  }
}

function moduleOf(name: string): string {
  return name.replace(/\.weight$/, '')
}
