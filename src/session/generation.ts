import type { Precision, Quantization } from '../config/index.ts'
import type { LoadedAdapter } from '../engine/cached/adapters.ts'
import { CachedDecoder } from '../engine/cached/cached-decoder.ts'
import { availableMemory, defaultThreads } from '../engine/machine.ts'
import { Runtime } from '../engine/onnxruntime/runtime.ts'
import type { PositionKind } from '../engine/positions.ts'
import { residentWeights, type WeightStore } from '../engine/weights.ts'
import { cachedStages } from '../model/cached.ts'
import type { DecoderConfig, LayerKind } from '../model/decoder.ts'
import { embeddingName, headName, sourceName } from '../model/names.ts'
import { openWeights } from '../model/sources/checkpoint.ts'
import { quantizedWeights } from '../model/sources/quantized.ts'
import type { WeightSource } from '../model/sources/source.ts'
import { linearPaths } from '../model/weight-specs.ts'
import { storageBytes, widened } from '../storage/formats.ts'
import { quantizeNBits } from '../storage/nbit.ts'
import { kindOf, type Storage, type StoredWeight } from '../storage/stored.ts'
import { LowrankError } from '../util/errors.ts'
import { positionKinds } from './decoder.ts'
import { loadAdapter } from './loaded-adapter.ts'

export interface GenerationOptions {
  /** Folder or GGUF file of the base model. */
  readonly model: string
  readonly threads?: number | undefined
  /** How the linear layers of the base model are quantized as it is read. */
  readonly quantization?: Quantization | undefined
  /** How products are computed; exact by default. */
  readonly precision?: Precision | undefined
}

/** A base model that generates, with adapters beside it. */
export interface Generation {
  readonly config: DecoderConfig
  readonly decoder: CachedDecoder
  /** How its weights are held, in words. */
  readonly held: string
  /** Reads an adapter, and makes ready what running with it needs. */
  readonly adapter: (folder: string) => Promise<LoadedAdapter>
  readonly close: () => Promise<void>
}

/**
 * Opens a model to generate with.
 *
 * @throws LowrankError `model`, `config`: it was refused.
 */
export async function openGeneration(options: GenerationOptions): Promise<Generation> {
  const { model, quantization, precision = 'exact', threads = defaultThreads() } = options
  const base = await openWeights(model)
  const runtime = new Runtime({ threads })
  try {
    const source = quantization === undefined ? base : quantizedWeights(base, quantization, () => false)
    const form = chooseForm(source, precision)
    const load = async (name: string): Promise<StoredWeight> =>
      form.convert(name, await source.load(sourceName(base.config, name)))
    const weights = new Map<string, StoredWeight>()
    for (const { name } of source.specs) if (!form.constant(name)) weights.set(name, await load(name))
    const constant = (name: string) => (form.constant(name) ? () => load(name) : undefined)
    const decoder = cachedDecoder({ config: base.config, runtime, weights: residentWeights(weights), form, constant })
    await decoder.prepare(undefined)
    return {
      config: base.config,
      decoder,
      held: form.text,
      adapter: async (folder) => {
        const adapter = await loadAdapter(folder, base)
        const replaced = decoder.replacesConstant(adapter)
        if (replaced !== undefined) throw replacedError(folder, replaced)
        await decoder.prepare(adapter)
        return adapter
      },
      close: async () => {
        await runtime.close()
        await base.close()
      },
    }
  } catch (error) {
    await runtime.close()
    await base.close()
    throw error
  }
}

/** How weights are held while a model generates. */
interface HeldForm {
  readonly text: string
  readonly storage: (name: string) => Storage
  readonly convert: (name: string, weight: StoredWeight) => StoredWeight
  readonly parts: 'whole' | 'blocks'
  /** Whether a weight is a constant of the programs. */
  readonly constant: (name: string) => boolean
  /** Whether the head is held beside an embedding that it is tied to, since it is stored otherwise. */
  readonly separateHead: boolean
}

function chooseForm(source: WeightSource, precision: Precision): HeldForm {
  return precision === 'exact' ? exactForm(source) : fastForm(source, precision)
}

/** Of free memory, what weights in f32 may take. */
const shareOfFree = 0.7

/**
 * Weights are f32 where they fit, since casting them for each token takes four times as long as reading them; those in 4 and 8 bits stay as
 * they are. What no kernel reads is unpacked block by block.
 */
function exactForm({ config, specs, storage: stored }: WeightSource): HeldForm {
  const linear = linearNames(config)
  const embedding = embeddingName(config)
  const target = (name: string, wide: boolean): Storage => {
    const product = linear.has(name) || (name === embedding && config.tieWordEmbeddings)
    if (product) return wide && !['4bit', 'int8'].includes(kindOf(stored(name))) ? 'F32' : stored(name)
    return name === embedding ? stored(name) : 'F32'
  }
  const bytes = specs.reduce((total, { name, shape }) => total + storageBytes(target(name, true), shape), 0)
  const wide = bytes <= shareOfFree * availableMemory()
  const storage = (name: string): Storage => target(name, wide)
  return {
    text: wide ? 'f32' : 'as stored',
    parts: specs.some(({ name }) => linear.has(name) && kindOf(storage(name)) === 'blocks') ? 'blocks' : 'whole',
    storage,
    convert: (name, weight) => (storage(name) === 'F32' ? widened(weight) : weight),
    constant: () => false,
    separateHead: false,
  }
}

/** Weights of products are integers in blocks, the head's of 8 bits: it decides between tokens. */
function fastForm({ config, storage: stored }: WeightSource, precision: Exclude<Precision, 'exact'>): HeldForm {
  const linear = linearNames(config)
  const bits = (name: string): 8 | 4 => (precision === 'fast-4bit' && name !== headName ? 4 : 8)
  const storage = (name: string): Storage => {
    if (linear.has(name)) return { kind: 'nbit', bits: bits(name) }
    return name === embeddingName(config) ? stored(name) : 'F32'
  }
  return {
    text: `products in integers of ${precision === 'fast' ? 8 : 4} bits`,
    parts: 'whole',
    storage,
    convert: (name, weight) => {
      if (linear.has(name)) return nBitWeight(weight, bits(name))
      return storage(name) === 'F32' ? widened(weight) : weight
    },
    constant: (name) => linear.has(name),
    separateHead: true,
  }
}

function linearNames(config: DecoderConfig): ReadonlySet<string> {
  return new Set(linearPaths(config).map((path) => `${path}.weight`))
}

function nBitWeight(weight: StoredWeight, bits: 8 | 4): StoredWeight {
  const { data, shape } = widened(weight)
  return { storage: { kind: 'nbit', bits }, shape, numbers: quantizeNBits(data, shape, bits) }
}

function replacedError(folder: string, name: string): LowrankError {
  return new LowrankError(
    'config',
    `${folder}: the adapter has a ${name} of its own, which "precision": fast cannot hold`,
    {
      hint: 'Use precision exact, or merge the adapter into the base model (lowrank merge).',
    },
  )
}

interface CachedDecoderParts {
  readonly config: DecoderConfig
  readonly runtime: Runtime
  readonly weights: WeightStore
  readonly form: Pick<HeldForm, 'storage' | 'parts' | 'separateHead'>
  readonly constant?: ConstructorParameters<typeof CachedDecoder>[0]['constant']
}

/** A decoder over weights that are held somewhere. */
export function cachedDecoder({ config, runtime, weights, form, constant }: CachedDecoderParts): CachedDecoder {
  const byLayer = positionKinds(config)
  const kinds = new Map<LayerKind, PositionKind>(config.layers.map((kind, i) => [kind, byLayer[i]!]))
  return new CachedDecoder({
    runtime,
    shape: { layers: config.numHiddenLayers, kvHeads: config.numKeyValueHeads, headDim: config.headDim },
    weights,
    embedding: { name: embeddingName(config), scale: config.embeddingScale },
    headName,
    constant,
    write: (adapted, separateHead) => {
      const own = separateHead || form.separateHead
      const options = { config, ...form, separateHead: own, adapted: (path: string) => adapted.has(path) }
      return cachedStages(options).map((stage) => ({ ...stage, kinds: stage.kinds.map((kind) => kinds.get(kind)!) }))
    },
  })
}
