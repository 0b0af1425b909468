import type { FloatDtype } from '../util/dtype.ts'
import type { FourBit } from './fourbit.ts'
import type { BlockType } from './gguf/index.ts'
import type { SplitBlocks, SplitType } from './gguf/split.ts'
import type { NBits } from './nbit.ts'
import type { SliceForm, Slices } from './slices.ts'

/** A weight in 4 bits, as bitsandbytes packs it. */
interface FourBitStorage {
  readonly kind: '4bit'
  readonly quantType: 'nf4' | 'fp4'
  /** Elements that share a scale. */
  readonly blockSize: number
  /** Whether the scales are quantized too. */
  readonly doubleQuant: boolean
}

/** A weight whose rows are integers of 8 bits with a scale each. */
interface Int8Storage {
  readonly kind: 'int8'
}

/** A weight in blocks of GGUF: rows are whole numbers of blocks. */
export interface BlockStorage {
  readonly kind: 'blocks'
  readonly type: BlockType
}

/** A weight in blocks of GGUF whose codes and scales are apart, so that programs can compute with slices of its rows. */
interface SplitStorage {
  readonly kind: 'split'
  readonly type: SplitType
}

/** A weight in integers of a few bits for the products of generation: `nbit.ts`. No file stores it. */
interface NBitStorage {
  readonly kind: 'nbit'
  readonly bits: 8 | 4
}

/** A weight as integers of 8 bits whose products make up those of the weight: `slices.ts`. No file stores it. */
export interface SlicedStorage extends SliceForm {
  readonly kind: 'slices'
}

/** The format a weight is stored in; of floats, their dtype. What can be done with each is in `formats.ts`. */
export type Storage =
  FloatDtype | Int8Storage | FourBitStorage | BlockStorage | SplitStorage | NBitStorage | SlicedStorage

/** A weight in the format in which it is stored. */
export type StoredWeight =
  FloatWeight | Int8Weight | FourBitWeight | BlockWeight | SplitWeight | NBitWeight | SlicedWeight

export interface FloatWeight {
  readonly storage: FloatDtype
  readonly shape: readonly number[]
  /** Float32Array for F32, bits in a Uint16Array for F16 and BF16. */
  readonly data: Float32Array | Uint16Array
}

/** A weight in f32. */
export type F32Weight = FloatWeight & { readonly storage: 'F32'; readonly data: Float32Array }

export interface FourBitWeight {
  readonly storage: FourBitStorage
  readonly shape: readonly number[]
  readonly packed: FourBit
}

/** Each row is 127 steps of its scale: w = data * scale / 127, data [rows, columns], scale [rows]. */
export interface Int8Weight {
  readonly storage: Int8Storage
  readonly shape: readonly number[]
  readonly data: Int8Array
  readonly scale: Float32Array
}

interface BlockWeight {
  readonly storage: BlockStorage
  readonly shape: readonly number[]
  /** As the file has them. */
  readonly bytes: Uint8Array<ArrayBuffer>
}

export interface SplitWeight {
  readonly storage: SplitStorage
  readonly shape: readonly number[]
  readonly blocks: SplitBlocks
}

export interface NBitWeight {
  readonly storage: NBitStorage
  readonly shape: readonly number[]
  readonly numbers: NBits
}

interface SlicedWeight {
  readonly storage: SlicedStorage
  readonly shape: readonly number[]
  readonly slices: Slices
}

/** A key of the table of formats. */
export type StorageKind = 'float' | Exclude<Storage, string>['kind']

/** How a kind is stored, and a weight that is stored so. */
export type StorageOf<K extends StorageKind> = K extends 'float' ? FloatDtype : Extract<Storage, { readonly kind: K }>
export type WeightOf<K extends StorageKind> = Extract<StoredWeight, { readonly storage: StorageOf<K> }>

export function kindOf(storage: Storage): StorageKind {
  return typeof storage === 'string' ? 'float' : storage.kind
}

export function isStored<K extends StorageKind>(weight: StoredWeight, kind: K): weight is WeightOf<K> {
  return kindOf(weight.storage) === kind
}

export function isFloat(weight: StoredWeight): weight is FloatWeight {
  return isStored(weight, 'float')
}

export function isNBits(storage: Storage): storage is NBitStorage {
  return kindOf(storage) === 'nbit'
}

export function isSliced(storage: Storage): storage is SlicedStorage {
  return kindOf(storage) === 'slices'
}

export function isFloatStorage(storage: Storage): storage is FloatDtype {
  return kindOf(storage) === 'float'
}
