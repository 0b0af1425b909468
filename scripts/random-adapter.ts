import { type AdapterTensor, writeAdapter } from '../src/model/peft/adapter.ts'
import { openWeights } from '../src/model/sources/checkpoint.ts'
import { linearPaths, linearSpecs } from '../src/model/weight-specs.ts'

/** Writes an adapter of rank `r` on all linear layers of a model, with small numbers in A and B. */
export async function writeRandomAdapter(folder: string, model: string, r: number): Promise<void> {
  const { config, close } = await openWeights(model)
  await close()
  const specs = new Map(linearSpecs(config).map((spec) => [spec.module, spec]))
  const tensors = linearPaths(config).flatMap((path) => {
    const spec = specs.get(path.replace(/^.*\.layers\.\d+\./, ''))
    if (spec === undefined) return []
    const tensor = (part: 'A' | 'B', rows: number, columns: number): AdapterTensor => ({
      name: `base_model.model.${path}.lora_${part}.weight`,
      shape: [rows, columns],
      data: Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i) / 100),
    })
    return [tensor('A', r, spec.inFeatures), tensor('B', spec.outFeatures, r)]
  })
  const lora = { r, loraAlpha: r, targetModules: 'all-linear', loraDropout: 0, bias: 'none', useRslora: false } as const
  await writeAdapter({ folder, config: lora, base: { name: model }, tensors, files: new Map(), card: undefined })
}
