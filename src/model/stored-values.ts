import { b } from '../graph/build.ts'
import type { Dim } from '../graph/dims.ts'
import type { Value } from '../graph/value.ts'
import { fedBlockSize, weightParts, type PartSpec } from '../storage/formats.ts'
import { splitLayouts } from '../storage/gguf/split.ts'
import { nBitBlock } from '../storage/nbit.ts'
import { kindOf, type Storage, type StorageKind, type StorageOf } from '../storage/stored.ts'
import { internalError } from '../util/errors.ts'

/** An input by which a weight may be fed. */
interface WeightInput extends PartSpec {
  readonly port: string
  readonly value: Value
}

/** A stored weight in terms of what is fed. */
export interface StoredValue {
  /** What may be fed for it; a program takes what it needs. */
  readonly inputs: readonly WeightInput[]
  /** Its f32 value, in slices of rows where it is large and not stored in f32; of rows in 8 bits, the value before it is scaled. */
  readonly slices: readonly Value[]
  /** By what the result of a product is multiplied, f32 [outFeatures], where rows are stored in 8 bits. */
  readonly outputScale: Value | undefined
}

type Given = readonly Value[]

/** What programs make of the parts of each format, but for what is fed unpacked: that is its value. */
const values: {
  readonly [K in StorageKind]: (
    given: Given,
    storage: StorageOf<K>,
    shape: readonly number[],
  ) => Pick<StoredValue, 'slices'> & Partial<StoredValue>
} = {
  float: (given, storage) => {
    if (storage === 'F32') return { slices: given }
    const format = storage === 'BF16' ? 'bf16' : 'f16'
    return { slices: given.map((bits) => b.decode(bits, format, { again: given.length > 1 })) }
  },
  int8: ([data, scales]) => ({ slices: data === undefined ? [] : [b.toFloat(data)], outputScale: scales }),
  '4bit': ([codes, scales], storage, [rows = 0, columns = 1]) => {
    const { quantType } = storage
    const attributes = { quantType, blockSize: fedBlockSize(storage), rows, columns }
    return { slices: codes && scales ? [b.fourBitWeight(codes, scales, attributes)] : [] }
  },
  // Unpacked by the host for each product: no kernel knows these blocks.
  blocks: (given) => ({ slices: given }),
  split: (given, { type }) => {
    const parts = splitLayouts[type].steps === 0 ? 2 : 3
    const slices = Array.from({ length: given.length / parts }, (_, i) => given.slice(parts * i, parts * (i + 1)))
    return { slices: slices.map((one) => splitValue(one, slices.length > 1)) }
  },
  nbit: ([codes, scales], { bits }, [rows = 0, columns = 0]) => {
    const attributes = { bits, blockSize: nBitBlock, rows, columns }
    return { slices: codes && scales ? [b.nBitWeight(codes, scales, attributes)] : [] }
  },
  slices: ([scales, ...slices], { low, orders }, [rows = 0, columns = 0]) => {
    return { slices: scales ? [b.slicedWeight(scales, slices, { rows, columns, low, orders })] : [] }
  },
}

/** Codes of a weight [rows, width] times the scales [rows, blocks] of their blocks, or those times the steps [rows, groups] of their groups. */
function splitValue([codes, scales, steps]: Given, again: boolean): Value {
  if (codes === undefined || scales === undefined) throw internalError('blocks without their scales')
  const [rows = 0, width = 0] = codes.type.shape
  const grouped = (x: Value, groups: Dim): Value => {
    const [, all = 0] = x.type.shape
    return b.reshape(x, [rows, groups, Number(all) / Number(groups)])
  }
  const [, blocks = 0] = scales.type.shape
  const ofBlocks = grouped(b.decode(scales, 'f16', { again }), blocks)
  if (steps === undefined) return b.reshape(b.mul(grouped(b.toFloat(codes), blocks), ofBlocks), [rows, width])
  const [, groups = 0] = steps.type.shape
  return b.sixBits(codes, b.reshape(b.mul(grouped(b.toFloat(steps), blocks), ofBlocks), [rows, groups]))
}

/** The inputs by which the weight `port` is fed, and its value in terms of them. */
export function storedValue(port: string, shape: readonly number[], storage: Storage): StoredValue {
  const specs = weightParts(storage, shape).map((spec) => ({ ...spec, port: `${port}${spec.suffix}` }))
  const given = specs
    .filter(({ part }) => part !== 'unpacked')
    .map((spec) => ({ ...spec, value: b.input(spec.port, { dtype: spec.dtype, shape: spec.shape }) }))
  const write = values[kindOf(storage)] as (typeof values)['float']
  const { slices, outputScale } = write(
    given.map(({ value }) => value),
    storage as StorageOf<'float'>,
    shape,
  )
  const unpacked = specs.filter(({ part }) => part === 'unpacked').map((spec) => ({ ...spec, value: slices[0] }))
  const inputs = [...given, ...unpacked.filter((input): input is WeightInput => input.value !== undefined)]
  return { inputs, slices, outputScale }
}
