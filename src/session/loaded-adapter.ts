import type { AdapterMatrices, LoadedAdapter } from '../engine/cached/adapters.ts'
import { adaptWithLora, checkAllUsed, readAdapterWeight, type Adaptation } from '../model/peft/adapt.ts'
import { readAdapter } from '../model/peft/adapter.ts'
import type { LoraModule } from '../model/peft/lora.ts'
import { headName } from '../model/names.ts'
import type { WeightSource } from '../model/sources/source.ts'
import { linearPaths } from '../model/weight-specs.ts'
import { widened } from '../storage/formats.ts'
import type { F32Weight, StoredWeight } from '../storage/stored.ts'
import { internalError } from '../util/errors.ts'

/**
 * Reads an adapter that is to lie beside its base model.
 *
 * @throws LowrankError `adapter`: it is damaged, or was made for another model.
 */
export async function loadAdapter(folder: string, base: WeightSource): Promise<LoadedAdapter> {
  const adapter = await readAdapter(folder)
  try {
    const adaptation = adaptWithLora(base, adapter.config, { loaded: true })
    await checkAllUsed(adapter, base, adaptation)
    const read = async (name: string, shape: readonly number[]): Promise<F32Weight> => {
      const file = { name: adaptation.fileName(name), shape, folder }
      return (await readAdapterWeight(adapter.tensors, file)) as F32Weight
    }
    return await besideBase(base, adaptation, read)
  } finally {
    await adapter.tensors.close()
  }
}

/** The adapter of a model that is in memory, as it is now, or that is being trained; where all weights are, those. */
export function heldAdapter(
  base: Pick<WeightSource, 'config' | 'specs'>,
  adaptation: Adaptation,
  weights: ReadonlyMap<string, StoredWeight>,
): Promise<LoadedAdapter> {
  return besideBase(base, adaptation, async (name) => {
    const weight = weights.get(name)
    if (weight === undefined) throw internalError(`${name} is not in memory`)
    return widened(weight)
  })
}

type ReadWeight = (name: string, shape: readonly number[]) => Promise<F32Weight>

async function besideBase(
  { config, specs }: Pick<WeightSource, 'config' | 'specs'>,
  { adapterOf, trainable, separateHead }: Adaptation,
  read: ReadWeight,
): Promise<LoadedAdapter> {
  const shapes = new Map(specs.map(({ name, shape }) => [name, shape]))
  const [embedding] = specs
  // The head of a tied model has the shape of the embedding.
  const shapeOf = (path: string): readonly number[] => shapes.get(`${path}.weight`) ?? embedding?.shape ?? []
  const adapted = linearPaths(config).flatMap((path) => {
    const module = adapterOf(path)
    return module === undefined ? [] : [{ path, module }]
  })
  const rank = Math.max(0, ...adapted.map(({ module }) => module.r))
  const scale = adapted[0]?.module.scale ?? 1
  const modules = new Map<string, AdapterMatrices>()
  for (const { path, module } of adapted) {
    const [outFeatures = 0, inFeatures = 0] = shapeOf(path)
    const a = await read(`${path}.lora_A.weight`, [module.r, inFeatures])
    const b = await read(`${path}.lora_B.weight`, [outFeatures, module.r])
    modules.set(path, matrices({ a, b, module }, { rank, scale }))
  }
  const replaced = new Map<string, StoredWeight>()
  const names = [...shapes.keys(), ...(separateHead ? [headName] : [])]
  for (const name of names) {
    if (trainable(name)) replaced.set(name, await read(name, shapes.get(name) ?? embedding?.shape ?? []))
  }
  // Where head and embedding stay one, what is trained of it is both.
  const both = separateHead ? undefined : replaced.get(embedding?.name ?? '')
  if (config.tieWordEmbeddings && both !== undefined) replaced.set(headName, both)
  return { rank, scale, modules, replaced }
}

/** A filled up to the common rank; B transposed likewise, with what its scale has beyond the common one. */
function matrices(
  { a, b, module }: { readonly a: F32Weight; readonly b: F32Weight; readonly module: LoraModule },
  common: { readonly rank: number; readonly scale: number },
): AdapterMatrices {
  const [outFeatures = 0] = b.shape
  const [, inFeatures = 0] = a.shape
  const { r, scale } = module
  const [own, other] = [new Float32Array(common.rank * inFeatures), new Float32Array(common.rank * outFeatures)]
  own.set(a.data)
  const factor = scale / common.scale
  for (let row = 0; row < outFeatures; row++) {
    for (let k = 0; k < r; k++) other[k * outFeatures + row] = b.data[row * r + k]! * factor
  }
  return { a: own, b: other }
}
