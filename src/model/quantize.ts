import type { Quantization } from '../config.ts'
import { dequantizeFourBit, quantizeFourBit } from '../quant/fourbit.ts'
import { dequantizeInt8, quantizeInt8 } from '../quant/int8.ts'
import type { FloatWeight, Storage, StoredWeight } from '../quant/stored.ts'
import { bf16ToF32, f16ToF32 } from '../util/dtype.ts'
import { linearPaths, type WeightSource } from './weights.ts'

/**
 * The same weights with the linear layers of the blocks quantized as they are loaded, one at a time. Norms, embedding and head stay as
 * they are stored, as with bitsandbytes; so do those that `except` names.
 */
export function quantizedWeights(
  source: WeightSource,
  quantization: Quantization,
  except: (name: string) => boolean,
): WeightSource {
  const linears = new Set(linearPaths(source.config).map((path) => `${path}.weight`))
  linears.delete('lm_head.weight')
  const quantizes = (name: string): boolean => linears.has(name) && !except(name)
  return {
    ...source,
    storage: (name) => (quantizes(name) ? storageOf(quantization) : source.storage(name)),
    load: async (name, reuse) => {
      if (!quantizes(name)) return source.load(name, reuse)
      return quantizeWeight(widened(await source.load(name)), quantization, name)
    },
  }
}

/** What a weight quantized so is stored as. */
export function storageOf(quantization: Quantization): Storage {
  return quantization.kind === '8bit'
    ? 'INT8'
    : { quantType: quantization.quantType, blockSize: quantization.blockSize }
}

/** @throws LowrankError `model`: an element that is not finite. */
export function quantizeWeight({ data, shape }: F32Weight, quantization: Quantization, name: string): StoredWeight {
  const [rows = 0, columns = 0] = shape
  if (quantization.kind === '8bit') return { storage: 'INT8', shape, ...quantizeInt8(data, rows, columns, name) }
  const { quantType, blockSize } = quantization
  return { storage: { quantType, blockSize }, shape, packed: quantizeFourBit(data, quantization, name) }
}

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
