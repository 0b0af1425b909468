import { openWeights } from '../model/sources/checkpoint.ts'
import { mergedWeights } from '../model/sources/merged.ts'
import { quantizedWeights } from '../model/sources/quantized.ts'
import type { WeightSource } from '../model/sources/source.ts'
import { readAdapter } from '../model/peft/adapter.ts'
import type { ExportInput } from './exporter.ts'

/** The weights that are exported: those of the base, with the adapter added in f32 where there is one. */
export async function weightsOf(
  { adapter: folder, quantization }: Pick<ExportInput, 'adapter' | 'quantization'>,
  model: string,
): Promise<WeightSource> {
  const base = await openWeights(model)
  try {
    if (folder === undefined) return base
    // As it was held while the adapter was trained: on another base the adapter would be another one.
    const held = quantization === undefined ? base : quantizedWeights(base, quantization, () => false)
    return await mergedWeights(held, [{ folder, adapter: await readAdapter(folder), scale: 1 }])
  } catch (error) {
    await base.close()
    throw error
  }
}
