import { bytesToF32 } from '../util/dtype.ts'
import { LowrankError } from '../util/errors.ts'
import { readAdapter } from './peft.ts'
import { openWeights } from './weights.ts'
import { widened } from './widened.ts'

/**
 * Why a model computes NaN or infinity: reads all of it again, which is worth its time once something is known to be wrong, and names the
 * first tensor that holds such a number. `found` is what was computed: `loss is NaN`.
 */
export async function notFiniteError(
  { model, adapter }: { readonly model: string; readonly adapter?: string | undefined },
  found: string,
): Promise<LowrankError> {
  const inAdapter = adapter === undefined ? undefined : await inAdapterOf(adapter)
  const place = inAdapter ?? (await inModelOf(model))
  if (place !== undefined) {
    return new LowrankError(inAdapter === undefined ? 'model' : 'adapter', `the ${found}: ${place}`, {
      hint: 'The weights are damaged, or overflowed before they were saved.',
    })
  }
  const folders = [model, adapter].filter((path) => path !== undefined).join(' with ')
  return new LowrankError('model', `the ${found}: the weights of ${folders} are finite, but what they compute is not`, {
    hint: 'Some of them are far too large.',
  })
}

async function inModelOf(folder: string): Promise<string | undefined> {
  const source = await openWeights(folder)
  try {
    for (const { name } of source.specs) {
      const place = placeIn(widened(await source.load(name)).data)
      if (place !== undefined) return `${folder}: tensor "${name}" holds ${place}`
    }
    return undefined
  } finally {
    await source.close()
  }
}

async function inAdapterOf(folder: string): Promise<string | undefined> {
  const { tensors } = await readAdapter(folder)
  try {
    for (const { name, dtype, file } of tensors.tensors.values()) {
      if (dtype !== 'F32' && dtype !== 'F16' && dtype !== 'BF16') continue
      const place = placeIn(bytesToF32(await tensors.read(name), dtype))
      if (place !== undefined) return `${file}: tensor "${name}" holds ${place}`
    }
    return undefined
  } finally {
    await tensors.close()
  }
}

function placeIn(values: Float32Array): string | undefined {
  const index = values.findIndex((value) => !Number.isFinite(value))
  return index === -1 ? undefined : `${values[index]} in element ${index}`
}
