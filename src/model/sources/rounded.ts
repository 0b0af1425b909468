import { widened } from '../../storage/formats.ts'
import { f32ToBf16, f32ToF16, type FloatDtype } from '../../util/dtype.ts'
import type { WeightSource } from './source.ts'

/** The same weights, rounded to a dtype as they are loaded; what is too large for it becomes infinite. */
export function roundedWeights(source: WeightSource, dtype: Exclude<FloatDtype, 'F32'>): WeightSource {
  const round = dtype === 'BF16' ? f32ToBf16 : f32ToF16
  return {
    ...source,
    quantization: undefined,
    storage: () => dtype,
    load: async (name) => {
      const stored = await source.load(name)
      if (stored.storage === dtype) return stored
      const { data, shape } = widened(stored)
      return { storage: dtype, shape, data: round(data) }
    },
  }
}
