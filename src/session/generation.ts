import type { Precision, Quantization } from '../config/index.ts'
import type { LoadedAdapter } from '../engine/cached/adapters.ts'
import type { CachedDecoder } from '../engine/cached/cached-decoder.ts'
import { availableMemory, defaultThreads } from '../engine/machine.ts'
import { Runtime } from '../engine/onnxruntime/runtime.ts'
import { residentWeights } from '../engine/weights.ts'
import type { DecoderConfig } from '../model/decoder.ts'
import { embeddingName, headName, sourceName } from '../model/names.ts'
import { openWeights } from '../model/sources/checkpoint.ts'
import { quantizedWeights } from '../model/sources/quantized.ts'
import type { WeightSource } from '../model/sources/source.ts'
import { linearPaths } from '../model/weight-specs.ts'
import { storageBytes, widened } from '../storage/formats.ts'
import { inNBits } from '../storage/in-nbits.ts'
import { kindOf, type Storage, type StoredWeight } from '../storage/stored.ts'
import { LowrankError } from '../util/errors.ts'
import { cachedDecoder, type HeldForm } from './cached-decoder.ts'
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
  readonly precision: Precision
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
    // What a tied head is where an adapter has an embedding of its own.
    const tied = weights.get(sourceName(base.config, headName))
    if (tied !== undefined) weights.set(headName, tied)
    // Where nothing is a constant, each set of adapted modules has a program of its own.
    const constant =
      precision === 'exact' ? undefined : (name: string) => (form.constant(name) ? () => load(name) : undefined)
    const decoder = cachedDecoder({ config: base.config, runtime, weights: residentWeights(weights), form, constant })
    await decoder.prepare(undefined)
    return {
      config: base.config,
      decoder,
      held: form.text,
      precision,
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

/** How weights are held while a model generates, and how they get there. */
interface ChosenForm extends HeldForm {
  readonly text: string
  readonly convert: (name: string, weight: StoredWeight) => StoredWeight
  /** Whether a weight is a constant of the programs. */
  readonly constant: (name: string) => boolean
}

function chooseForm(source: WeightSource, precision: Precision): ChosenForm {
  return precision === 'exact' ? exactForm(source) : fastForm(source, precision)
}

/** Of free memory, what weights in f32 may take. */
const shareOfFree = 0.7

/**
 * Weights are f32 where they fit, since casting them for each token takes four times as long as reading them; those in 4 and 8 bits stay as
 * they are. What no kernel reads is unpacked block by block.
 */
function exactForm({ config, specs, ...source }: WeightSource): ChosenForm {
  const linear = linearNames(config)
  const embedding = embeddingName(config)
  const stored = (name: string): Storage => source.storage(sourceName(config, name))
  const target = (name: string, wide: boolean): Storage => {
    const product = linear.has(name) || (name === embedding && config.tieWordEmbeddings)
    if (product) return wide && !['4bit', 'int8'].includes(kindOf(stored(name))) ? 'F32' : stored(name)
    return name === embedding ? stored(name) : 'F32'
  }
  const bytes = specs.reduce((total, { name, shape }) => total + storageBytes(target(name, true), shape), 0)
  const wide = bytes <= shareOfFree * availableMemory()
  const storage = (name: string): Storage => target(sourceName(config, name), wide)
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
function fastForm({ config, storage: stored }: WeightSource, precision: Exclude<Precision, 'exact'>): ChosenForm {
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
      if (linear.has(name)) return inNBits(weight, bits(name))
      return storage(name) === 'F32' ? widened(weight) : weight
    },
    constant: (name) => linear.has(name),
    separateHead: true,
  }
}

function linearNames(config: DecoderConfig): ReadonlySet<string> {
  return new Set(linearPaths(config).map((path) => `${path}.weight`))
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
