import { CachedDecoder } from '../engine/cached/cached-decoder.ts'
import type { Runtime } from '../engine/onnxruntime/runtime.ts'
import type { PositionKind } from '../engine/positions.ts'
import type { WeightStore } from '../engine/weights.ts'
import { groupSize } from '../model/attention.ts'
import { cachedStages } from '../model/cached.ts'
import type { DecoderConfig, LayerKind } from '../model/decoder.ts'
import { embeddingName, headName } from '../model/names.ts'
import type { Storage } from '../storage/stored.ts'
import { positionKinds } from './positions.ts'

/** How the weights of a cached decoder are held. */
export interface HeldForm {
  readonly storage: (name: string) => Storage
  readonly parts: 'whole' | 'blocks'
  /** Whether the head is held beside an embedding that it is tied to, since it is stored otherwise. */
  readonly separateHead: boolean
}

interface CachedDecoderParts {
  readonly config: DecoderConfig
  readonly runtime: Runtime
  readonly weights: Pick<WeightStore, 'resident' | 'block'>
  readonly form: HeldForm
  readonly constant?: ConstructorParameters<typeof CachedDecoder>[0]['constant']
}

/** A decoder over weights that are held somewhere. */
export function cachedDecoder({ config, runtime, weights, form, constant }: CachedDecoderParts): CachedDecoder {
  const byLayer = positionKinds(config)
  const kinds = new Map<LayerKind, PositionKind>(config.layers.map((kind, i) => [kind, byLayer[i]!]))
  return new CachedDecoder({
    runtime,
    shape: { layers: config.numHiddenLayers, kvHeads: config.numKeyValueHeads, headDim: config.headDim },
    group: groupSize(config),
    weights,
    embedding: { name: embeddingName(config), scale: config.embeddingScale },
    constant,
    kinds: [...new Set(byLayer)],
    write: ({ adapted, replaced, result }) => {
      const options = {
        config,
        parts: form.parts,
        result,
        separateHead: form.separateHead || [headName, embeddingName(config)].some((name) => replaced.has(name)),
        adapted: (path: string) => adapted.has(path),
        storage: (name: string): Storage => (replaced.has(name) ? 'F32' : form.storage(name)),
      }
      return cachedStages(options).map((stage) => ({ ...stage, kinds: stage.kinds.map((kind) => kinds.get(kind)!) }))
    },
  })
}
