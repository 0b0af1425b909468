import { dequantizeFourBit } from './fourbit.ts'
import { dequantizeInt8 } from './int8.ts'
import type { FloatWeight, StoredWeight } from './stored.ts'
import { bf16ToF32, f16ToF32 } from '../util/dtype.ts'

/** A weight in f32. */
export type F32Weight = FloatWeight & { readonly storage: 'F32'; readonly data: Float32Array }

/** The f32 form of a stored weight: the weight itself where it is stored so. */
export function widened(weight: StoredWeight): F32Weight {
  const { shape } = weight
  const f32 = (data: Float32Array): F32Weight => ({ storage: 'F32', shape, data })
  if ('packed' in weight) return f32(dequantizeFourBit(weight.packed))
  if (weight.storage === 'INT8') return f32(dequantizeInt8(weight))
  const { storage, data } = weight
  if (data instanceof Float32Array) return f32(data)
  return f32(storage === 'BF16' ? bf16ToF32(data) : f16ToF32(data))
}
