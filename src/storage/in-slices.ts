import { internalError } from '../util/errors.ts'
import { widened } from './formats.ts'
import { type SliceForm, sliceFloats, sliceIntegers } from './slices.ts'
import {
  isFloat,
  isFloatStorage,
  isStored,
  kindOf,
  type SlicedStorage,
  type Storage,
  type StoredWeight,
} from './stored.ts'

/** Whether products with a weight that is stored so can be put together from products of integers. */
export function canSlice(storage: Storage): boolean {
  return isFloatStorage(storage) || kindOf(storage) === 'int8'
}

/** How such a weight is held for that: one that is rows of integers consists of one slice. */
export function slicedAs(storage: Storage, orders: SliceForm['orders']): SlicedStorage {
  return { kind: 'slices', low: kindOf(storage) !== 'int8', orders }
}

/** A weight [rows, columns] as its slices. */
export function inSlices(weight: StoredWeight, storage: SlicedStorage): StoredWeight {
  const { shape } = weight
  if (isStored(weight, 'int8')) {
    const scales = weight.scale.map((one) => one / 127)
    return { storage, shape, slices: sliceIntegers(weight.data, scales, shape, storage.orders) }
  }
  if (!isFloat(weight)) throw internalError(`a weight stored as ${kindOf(weight.storage)} is cut into slices`)
  return { storage, shape, slices: sliceFloats(widened(weight).data, shape, storage.orders) }
}
