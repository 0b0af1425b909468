import { adaptWithLora, checkAllUsed, readAdapterWeight } from '../model/peft/adapt.ts'
import { baseNameOf, loraTensorNames, readAdapter, weightsName } from '../model/peft/adapter.ts'
import type { DecoderConfig } from '../model/decoder.ts'
import { headName } from '../model/names.ts'
import { openWeights } from '../model/sources/checkpoint.ts'
import { linearPaths } from '../model/weight-specs.ts'
import { join } from 'node:path'
import { internalError, LowrankError } from '../util/errors.ts'
import { type ExportInput, using } from './exporter.ts'

/** What an adapter adds to one linear layer: scale * B A. */
export interface LoraPair {
  /** Path of the layer: `model.layers.0.self_attn.q_proj`. */
  readonly path: string
  readonly r: number
  readonly scale: number
  /** [r, inner] */
  readonly a: Float32Array
  /** [out, r] */
  readonly b: Float32Array
  readonly inner: number
  readonly out: number
}

export interface LoraPairs {
  readonly config: DecoderConfig
  readonly pairs: readonly LoraPair[]
  readonly dropout: number
}

/** An adapter that was checked against its base, as nothing but products of A and B: all that other forms hold. An adapter is small. */
export async function loraPairs({ adapter: folder, model }: ExportInput, form: string): Promise<LoraPairs> {
  if (folder === undefined || model === undefined) throw internalError('an export without what it needs')
  return using(await openWeights(model), async (base) => {
    const adapter = await readAdapter(folder)
    try {
      const adaptation = adaptWithLora(base, adapter.config, { loaded: true })
      await checkAllUsed(adapter, base, adaptation)
      const { config } = base
      const refuse = (what: string): never => {
        throw new LowrankError('adapter', `${join(folder, weightsName)}: ${what}, which ${form} cannot hold`, {
          hint: 'Add the adapter to the base and write the whole model: --to gguf, or --to merged.',
        })
      }
      const whole = [...adapter.tensors.tensors.keys()]
        .map(baseNameOf)
        .find((name) => adaptation.trainable(name) && !name.includes('.lora_'))
      if (whole !== undefined) refuse(`it has the whole of ${whole}`)
      const shapes = new Map(base.specs.map(({ name, shape }) => [name, shape]))
      const pairs: LoraPair[] = []
      for (const path of linearPaths(config)) {
        const lora = adaptation.adapterOf(path)
        if (lora === undefined) continue
        const tied = `${path}.weight` === headName && config.tieWordEmbeddings
        if (tied) refuse('it adapts the output head, which in this model is the embedding')
        const [out = 0, inner = 0] = shapes.get(`${path}.weight`) ?? []
        const names = loraTensorNames(path)
        const { r, scale } = lora
        const read = (name: string, shape: readonly number[]): Promise<{ readonly data: Float32Array }> =>
          readAdapterWeight(adapter.tensors, { name, shape, folder })
        const [a, b] = [await read(names.a, [r, inner]), await read(names.b, [out, r])]
        pairs.push({ path, r, scale, a: a.data, b: b.data, inner, out })
      }
      return { config, pairs, dropout: adapter.config.loraDropout }
    } finally {
      await adapter.tensors.close()
    }
  })
}

/** The value that most have, 0 apart: what one number says of all is rounded for the fewest. */
export function mostCommon(values: readonly number[]): number {
  const counts = new Map<number, number>()
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1)
  // By what adds nothing, nothing can be divided.
  counts.delete(0)
  const [first] = [...counts].toSorted(([, a], [, b]) => b - a)
  return first?.[0] ?? 1
}

/** The same numbers times a factor, rounded once; their own memory where that is 1. */
export function timesFactor(values: Float32Array, factor: number): Float32Array {
  return factor === 1 ? values : values.map((value) => value * factor)
}
