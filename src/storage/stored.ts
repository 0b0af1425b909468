import type { FloatDtype } from '../util/dtype.ts'
import { nestedBlockSize, type FourBit } from './fourbit.ts'
import { elements } from '../util/shape.ts'

/** A weight packed in 4 bits, as far as programs that compute with it are concerned. */
export interface FourBitStorage {
  readonly quantType: 'nf4' | 'fp4'
  readonly blockSize: number
}

/** The format a weight is stored in. */
export type Storage = FloatDtype | 'INT8' | FourBitStorage

/** A weight in the format in which it is stored. */
export type StoredWeight = FloatWeight | FourBitWeight | Int8Weight

export interface FloatWeight {
  readonly storage: FloatDtype
  readonly shape: readonly number[]
  /** Float32Array for F32, bits in a Uint16Array for F16 and BF16. */
  readonly data: Float32Array | Uint16Array
}

export interface FourBitWeight {
  readonly storage: FourBitStorage
  readonly shape: readonly number[]
  readonly packed: FourBit
}

/** Each row is 127 steps of its scale: w = data * scale / 127, data [rows, columns], scale [rows]. */
export interface Int8Weight {
  readonly storage: 'INT8'
  readonly shape: readonly number[]
  readonly data: Int8Array
  readonly scale: Float32Array
}

export function isFloat(weight: StoredWeight): weight is FloatWeight {
  return isFloatStorage(weight.storage)
}

export function isFloatStorage(storage: Storage): storage is FloatDtype {
  return typeof storage === 'string' && storage !== 'INT8'
}

/** Bytes a weight takes as it is stored, its scales included. */
export function storedBytes(weight: StoredWeight): number {
  if ('packed' in weight) {
    const { codes, scales } = weight.packed
    const scaleBytes = scales.absmax.byteLength + ('offset' in scales ? scales.codes.byteLength : 0)
    return codes.byteLength + scaleBytes
  }
  return weight.data.byteLength + ('scale' in weight ? weight.scale.byteLength : 0)
}

/** Elements of a block as programs see it: the kernel of packed products knows up to 256, larger blocks are fed as several of one scale. */
export function fedBlockSize({ blockSize }: FourBitStorage): number {
  return Math.min(blockSize, 256)
}

/** Bytes that a weight of this shape takes as it is stored. */
export function storageBytes(storage: Storage, shape: readonly number[], doubleQuant: boolean): number {
  const count = elements(shape)
  if (storage === 'F32') return 4 * count
  if (storage === 'INT8') return count + 4 * (shape[0] ?? 0)
  if (typeof storage === 'string') return 2 * count
  const blocks = Math.ceil(count / storage.blockSize)
  return Math.ceil(count / 2) + (doubleQuant ? blocks + 4 * Math.ceil(blocks / nestedBlockSize) : 4 * blocks)
}
