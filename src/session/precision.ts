import type { MatmulPrecision, TrainConfig } from '../config/index.ts'
import { integerProductsAreExact, productRatio, type WriteWeight } from '../engine/product-probe.ts'
import { linearSpecs } from '../model/weight-specs.ts'
import { storedValue } from '../model/stored-values.ts'
import { slicedAs } from '../storage/in-slices.ts'
import { isFloatStorage, type Storage } from '../storage/stored.ts'
import { internalError } from '../util/errors.ts'
import type { PreparedDecoder } from './decoder.ts'

/** What products with frozen weights are computed in, and why. */
export interface PickedPrecision {
  readonly matmulPrecision: MatmulPrecision
  readonly why: string
}

/** Integers have to be this much faster to be picked: below that, two runs on one machine could pick differently. */
const worthwhile = 1.2

/** Widths of layers below which there is nothing to win: cutting takes as long as the product. */
const narrow = 256

/** Most floating point operations of a product that is timed: some milliseconds. */
const mostFlops = 5e9

/** Most rows that are timed. */
const mostRows = 512

const slow = 'this processor has no fast exact products of integers'

/** Different shapes of layers that are timed, those of most operations. */
const shapesTimed = 2

/**
 * Decides what products with the frozen weights of blocks are computed in. `auto` takes integers where fast ones are exact and faster, which it
 * measures, in less than a second.
 */
export async function pickPrecision(
  setting: TrainConfig['matmulPrecision'],
  prepared: PreparedDecoder,
): Promise<PickedPrecision> {
  if (setting === 'highest') return { matmulPrecision: 'highest', why: 'as asked for' }
  const { threads } = prepared
  const stored = prepared.frozenStorage
  if (stored === undefined)
    return highest('integers are for frozen weights in floats or in rows of 8 bits, of which there are none')
  if (setting === 'high') {
    const fast = await integerProductsAreExact(threads)
    return { matmulPrecision: 'high', why: fast ? 'as asked for' : `as asked for; ${slow}, slower than f32` }
  }
  const linears = linearSpecs(prepared.config)
  const shapes = largest(linears)
  if (shapes.some(({ inFeatures, outFeatures }) => Math.min(inFeatures, outFeatures) < narrow)) {
    return highest('layers are too narrow for products of integers to be faster')
  }
  if (!(await integerProductsAreExact(threads))) return highest(slow)
  const [most] = shapes
  const flops = 2 * (most?.inFeatures ?? 1) * (most?.outFeatures ?? 1)
  const rows = Math.max(64, Math.min(mostRows, Math.floor(mostFlops / flops)))
  const ratio = await productRatio(shapes, {
    one: writeAs(isFloatStorage(stored) ? 'F32' : stored),
    other: writeAs(slicedAs(stored, 2)),
    rows,
    threads,
  })
  const measured = `products of integers are ${ratio.toFixed(2)} x as fast here`
  return ratio >= worthwhile ? { matmulPrecision: 'high', why: measured } : highest(measured)
}

function highest(why: string): PickedPrecision {
  return { matmulPrecision: 'highest', why }
}

type LinearShape = ReturnType<typeof linearSpecs>[number]

/** One of each shape, those of most operations first. */
function largest(linears: readonly LinearShape[]): readonly LinearShape[] {
  const size = ({ inFeatures, outFeatures }: LinearShape): number => inFeatures * outFeatures
  const shapes = new Map(linears.map((linear) => [`${linear.inFeatures} ${linear.outFeatures}`, linear]))
  return [...shapes.values()].toSorted((one, other) => size(other) - size(one)).slice(0, shapesTimed)
}

/** The value of a weight that is held so, as blocks read it. */
function writeAs(storage: Storage): WriteWeight {
  return (shape) => {
    const { inputs, slices } = storedValue('w', shape, storage)
    const [value] = slices
    if (value === undefined || slices.length !== 1) throw internalError('a weight of a block in slices of rows')
    return { inputs, value }
  }
}
