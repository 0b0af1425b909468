import { bf16ToF32, f16ToF32 } from '../util/dtype.ts'
import { internalError } from '../util/errors.ts'
import { elements } from '../util/shape.ts'
import { blockScales, dequantizeFourBit, nestedBlockSize, type FourBit } from './fourbit.ts'
import { dequantizeBlocks, layoutOf } from './gguf/index.ts'
import { joinRow, splitLayouts } from './gguf/split.ts'
import { dequantizeInt8 } from './int8.ts'
import { dequantizeNBits, nBitBlock } from './nbit.ts'
import { joinSlices, type SliceForm } from './slices.ts'
import {
  kindOf,
  type F32Weight,
  type Storage,
  type StorageKind,
  type StorageOf,
  type StoredWeight,
  type WeightOf,
} from './stored.ts'

/**
 * What of a stored weight is fed to a program: its elements, the scales of its blocks or rows, the steps of groups within blocks, its slices
 * in one order and in the other (`high` alone, and with `low` behind it), or (where programs cannot compute with the packed form) all of it
 * unpacked to f32.
 */
type WeightPart = 'data' | 'scales' | 'steps' | 'unpacked' | SlicePart
type SlicePart = 'high' | 'high+low' | 'backward high' | 'backward high+low'

/** An input by which a weight is fed. */
export interface PartSpec {
  readonly part: WeightPart
  /** Behind the name of the weight. */
  readonly suffix: string
  readonly dtype: 'f32' | 'u16' | 'i8' | 'u8'
  readonly shape: readonly number[]
  /** Whether it is computed by the host, into memory of its own that is used again. */
  readonly computed?: true
  /** Which rows of the weight, where it is fed in slices: from `start` up to `end`. */
  readonly rows?: { readonly start: number; readonly end: number }
}

/** What is fed for a part: memory that is there, or values that are computed into memory of `count` floats. */
type FedPart =
  | { readonly data: Float32Array | Uint16Array | Int8Array | Uint8Array }
  | { readonly count: number; readonly fill: (out: Float32Array) => void }

/** A format in which weights are stored. */
interface StorageFormat<K extends StorageKind> {
  /** Bytes that a weight of this shape takes, its scales included. */
  bytes(storage: StorageOf<K>, shape: readonly number[]): number
  /** Bytes that this one takes. */
  taken(weight: WeightOf<K>): number
  /** The inputs that a weight of this shape may be fed by; a program takes what it needs. */
  parts(storage: StorageOf<K>, shape: readonly number[]): readonly PartSpec[]
  feed(weight: WeightOf<K>, part: PartSpec): FedPart
  /** Its f32 form; for weights in f32, their own memory. */
  widen(weight: WeightOf<K>): Float32Array
  /** One row in f32, of formats in which an embedding may be. */
  row?(weight: WeightOf<K>, row: number, out: Float32Array): void
}

/** Every format; what programs make of its parts is in `model/stored-values.ts`. */
const formats: { readonly [K in StorageKind]: StorageFormat<K> } = {
  float: {
    bytes: (storage, shape) => (storage === 'F32' ? 4 : 2) * elements(shape),
    taken: ({ data }) => data.byteLength,
    parts: floatParts,
    feed: ({ data, shape }, { rows }) => {
      if (rows === undefined) return { data }
      const width = elements(shape.slice(1))
      return { data: data.subarray(rows.start * width, rows.end * width) }
    },
    widen: ({ storage, data }) => {
      if (data instanceof Float32Array) return data
      return storage === 'BF16' ? bf16ToF32(data) : f16ToF32(data)
    },
    row: ({ storage, data }, row, out) => {
      const own = data.subarray(row * out.length, (row + 1) * out.length)
      if (own instanceof Float32Array) out.set(own)
      else if (storage === 'BF16') bf16ToF32(own, out)
      else f16ToF32(own, out)
    },
  },
  int8: {
    bytes: (_, shape) => elements(shape) + 4 * (shape[0] ?? 0),
    taken: ({ data, scale }) => data.byteLength + scale.byteLength,
    parts: (_, shape) => [
      { part: 'data', suffix: '', dtype: 'i8', shape },
      { part: 'scales', suffix: '.scales', dtype: 'f32', shape: [shape[0] ?? 0] },
    ],
    feed: ({ data, scale }, { part }) => ({ data: part === 'data' ? data : scale.map((one) => one / 127) }),
    widen: (weight) => dequantizeInt8(weight),
  },
  '4bit': {
    bytes: ({ blockSize, doubleQuant }, shape) => {
      const blocks = Math.ceil(elements(shape) / blockSize)
      const scales = doubleQuant ? blocks + 4 * Math.ceil(blocks / nestedBlockSize) : 4 * blocks
      return Math.ceil(elements(shape) / 2) + scales
    },
    taken: ({ packed: { codes, scales } }) =>
      codes.byteLength + scales.absmax.byteLength + ('offset' in scales ? scales.codes.byteLength : 0),
    parts: (storage, shape) => {
      const count = elements(shape)
      return [
        { part: 'data', suffix: '', dtype: 'u8', shape: [Math.ceil(count / 2)] },
        { part: 'scales', suffix: '.scales', dtype: 'f32', shape: [Math.ceil(count / fedBlockSize(storage))] },
        { part: 'unpacked', suffix: '.unpacked', dtype: 'f32', shape, computed: true },
      ]
    },
    feed: ({ packed, storage }, { part, shape }) => {
      const { codes, scales } = packed
      if (part === 'data') return { data: codes }
      const fed = fedBlockSize(storage)
      if (part === 'unpacked') return { count: packed.count, fill: (out) => void dequantizeFourBit(packed, out) }
      if (!('offset' in scales) && fed === storage.blockSize) return { data: scales.absmax }
      return { count: elements(shape), fill: (out) => fillScales(packed, fed, out) }
    },
    widen: ({ packed }) => dequantizeFourBit(packed),
  },
  blocks: {
    bytes: blockBytes,
    taken: ({ bytes }) => bytes.byteLength,
    parts: (_, shape) => [{ part: 'data', suffix: '', dtype: 'f32', shape, computed: true }],
    feed: ({ storage, bytes, shape }) => ({
      count: elements(shape),
      fill: (out) => void dequantizeBlocks(storage.type, bytes, out),
    }),
    widen: ({ storage, bytes, shape }) => dequantizeBlocks(storage.type, bytes, new Float32Array(elements(shape))),
    row: ({ storage, bytes }, row, out) => {
      const width = blockBytes(storage, [out.length])
      dequantizeBlocks(storage.type, bytes.subarray(row * width, (row + 1) * width), out)
    },
  },
  split: {
    bytes: ({ type }, shape) => {
      const { block, codes, steps } = splitLayouts[type]
      return (elements(shape) / block) * (codes + 2 + steps)
    },
    taken: ({ blocks: { codes, scales, steps } }) => codes.byteLength + scales.byteLength + steps.byteLength,
    parts: ({ type }, shape) => {
      const [width = 0] = shape.slice(1)
      const { block, codes, steps } = splitLayouts[type]
      return slicesOf(shape).flatMap(({ suffix, rows }): PartSpec[] => {
        const count = rows.end - rows.start
        const of = (part: WeightPart, dtype: PartSpec['dtype'], each: number): PartSpec => {
          const name = part === 'data' ? '' : `.${part}`
          return { part, suffix: `${name}${suffix}`, dtype, shape: [count, (width / block) * each], rows }
        }
        const parts = [of('data', type === 'Q8_0' ? 'i8' : 'u8', codes), of('scales', 'u16', 1)]
        return steps === 0 ? parts : [...parts, of('steps', 'i8', steps)]
      })
    },
    feed: ({ blocks: { codes, scales, steps } }, { part, shape, rows }) => {
      const whole = part === 'data' ? codes : part === 'scales' ? scales : steps
      const [, width = 0] = shape
      return { data: rows === undefined ? whole : whole.subarray(rows.start * width, rows.end * width) }
    },
    widen: ({ storage, blocks, shape }) => {
      const out = new Float32Array(elements(shape))
      const { width } = blocks
      for (let row = 0; row * width < out.length; row++) {
        joinRow(storage.type, blocks, row, out.subarray(row * width, (row + 1) * width))
      }
      return out
    },
    row: ({ storage, blocks }, row, out) => joinRow(storage.type, blocks, row, out),
  },
  nbit: {
    bytes: ({ bits }, shape) =>
      nBitParts(bits, shape).reduce((total, part) => total + (part.dtype === 'f32' ? 4 : 1) * elements(part.shape), 0),
    taken: ({ numbers: { codes, scales } }) => codes.byteLength + scales.byteLength,
    parts: ({ bits }, shape) => nBitParts(bits, shape),
    feed: ({ numbers: { codes, scales } }, { part }) => ({ data: part === 'data' ? codes : scales }),
    widen: ({ numbers, shape, storage: { bits } }) => dequantizeNBits(numbers, shape, bits),
  },
  slices: {
    bytes: ({ low, orders }, shape) => (low ? 2 : 1) * orders * elements(shape) + 4 * (shape[0] ?? 0),
    taken: ({ slices: { forward, backward, scales } }) =>
      forward.byteLength + (backward?.byteLength ?? 0) + scales.byteLength,
    parts: sliceParts,
    feed: ({ slices: { forward, backward = forward, scales }, shape }, { part }) => {
      if (part === 'scales') return { data: scales }
      const order = part.startsWith('backward') ? backward : forward
      return { data: part.endsWith('low') ? order : order.subarray(0, elements(shape)) }
    },
    widen: ({ slices, shape }) => joinSlices(slices, shape),
  },
}

/** `high` lies in the same memory as the two together. */
function sliceParts({ low, orders }: SliceForm, [rows = 0, columns = 0]: readonly number[]): PartSpec[] {
  const of = (part: SlicePart, height: number, width: number): PartSpec => {
    return { part, suffix: `.${part}`, dtype: 'i8', shape: [height, width] }
  }
  return [
    { part: 'scales', suffix: '.scales', dtype: 'f32', shape: [rows] },
    of('high', columns, rows),
    ...(low ? [of('high+low', 2 * columns, rows)] : []),
    ...(orders === 2 ? [of('backward high', rows, columns)] : []),
    ...(orders === 2 && low ? [of('backward high+low', 2 * rows, columns)] : []),
  ]
}

function nBitParts(bits: 8 | 4, [rows = 0, columns = 0]: readonly number[]): PartSpec[] {
  const blocks = Math.ceil(columns / nBitBlock)
  return [
    { part: 'data', suffix: '', dtype: 'u8', shape: [rows, blocks, (nBitBlock * bits) / 8] },
    { part: 'scales', suffix: '.scales', dtype: 'f32', shape: [rows, blocks] },
  ]
}

function blockBytes({ type }: StorageOf<'blocks'>, shape: readonly number[]): number {
  const layout = layoutOf(type)
  return (elements(shape) / layout.blockElements) * layout.blockBytes
}

function formatOf<K extends StorageKind>(storage: Storage): StorageFormat<K> {
  return formats[kindOf(storage) as K]
}

/** Bytes that a weight of this shape takes as it is stored. */
export function storageBytes(storage: Storage, shape: readonly number[]): number {
  return formatOf(storage).bytes(storage as StorageOf<StorageKind>, shape)
}

/** Bytes a weight takes as it is stored, its scales included. */
export function storedBytes(weight: StoredWeight): number {
  return formatOf(weight.storage).taken(weight as WeightOf<StorageKind>)
}

/** The inputs by which a weight may be fed. */
export function weightParts(storage: Storage, shape: readonly number[]): readonly PartSpec[] {
  return formatOf(storage).parts(storage as StorageOf<StorageKind>, shape)
}

/** What is fed of a weight for one of its parts. */
export function fedPart(weight: StoredWeight, part: PartSpec): FedPart {
  return formatOf(weight.storage).feed(weight as WeightOf<StorageKind>, part)
}

/** The f32 form of a stored weight: its own memory where it is stored so. */
export function widened(weight: StoredWeight): F32Weight {
  const data = formatOf(weight.storage).widen(weight as WeightOf<StorageKind>)
  return { storage: 'F32', shape: weight.shape, data }
}

/** Row `row` of a stored weight as f32, into `out`, which has its length. */
export function unpackRow(weight: StoredWeight, row: number, out: Float32Array): void {
  const format = formatOf(weight.storage)
  if (format.row === undefined) throw internalError(`rows of a weight stored as ${kindOf(weight.storage)} are gathered`)
  format.row(weight as WeightOf<StorageKind>, row, out)
}

/**
 * Elements of a 16-bit weight that are decoded at once: the f32 form of a large one, which takes three times its own memory with the copy
 * on the way, never exists whole.
 */
const sliceElements = 2 ** 22

/** A large weight in 16 bits is fed in slices of rows. */
function floatParts(storage: StorageOf<'float'>, shape: readonly number[]): PartSpec[] {
  const width = shape.slice(1)
  if (storage === 'F32') return [{ part: 'data', suffix: '', dtype: 'f32', shape }]
  const slices = slicesOf(shape)
  if (slices.length <= 1) return [{ part: 'data', suffix: '', dtype: 'u16', shape }]
  return slices.map(({ suffix, rows }): PartSpec => {
    return { part: 'data', suffix, dtype: 'u16', shape: [rows.end - rows.start, ...width], rows }
  })
}

/** The slices of rows in which a large weight is fed. */
function slicesOf(
  shape: readonly number[],
): { readonly suffix: string; readonly rows: NonNullable<PartSpec['rows']> }[] {
  const [rows = 0] = shape
  const count = Math.max(1, Math.min(rows, Math.ceil(elements(shape) / sliceElements)))
  return Array.from({ length: count }, (_, i) => {
    const [start, end] = [Math.floor((i * rows) / count), Math.floor(((i + 1) * rows) / count)]
    return { suffix: count === 1 ? '' : `.${i}`, rows: { start, end } }
  })
}

/** Elements of a block as programs see it: the kernel of packed products knows up to 256, larger blocks are fed as several of one scale. */
export function fedBlockSize({ blockSize }: { readonly blockSize: number }): number {
  return Math.min(blockSize, 256)
}

/** A scale for each block of `fed` elements. */
function fillScales(packed: FourBit, fed: number, out: Float32Array): void {
  if (fed === packed.blockSize) {
    blockScales(packed, out)
    return
  }
  const own = blockScales(packed)
  for (let i = 0; i < out.length; i++) out[i] = own[Math.floor((i * fed) / packed.blockSize)]!
}
