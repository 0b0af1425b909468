import { type MemoryChoice, quantizationText, type Quantization } from '../config/index.ts'
import { Pipeline } from '../engine/pipeline.ts'
import { defaultThreads } from '../engine/machine.ts'
import { integerProductsAreExact } from '../engine/product-probe.ts'
import type { RuntimeProfile } from '../engine/onnxruntime/profile.ts'
import { Runtime } from '../engine/onnxruntime/runtime.ts'
import { positionKinds } from './positions.ts'
import { residentWeights, StreamedWeights, type WeightStore } from '../engine/weights.ts'
import {
  trainEverything,
  adaptWithLora,
  checkAllUsed,
  frozen,
  initialLoraWeight,
  readAdapterWeight,
  type Adaptation,
} from '../model/peft/adapt.ts'
import type { DecoderConfig } from '../model/decoder.ts'
import { readDecoderConfig } from '../model/config.ts'
import { readAdapter, type Adapter } from '../model/peft/adapter.ts'
import type { LoraConfig } from '../model/peft/targets.ts'
import type { LoadedAdapter } from '../engine/cached/adapters.ts'
import type { CachedDecoder } from '../engine/cached/cached-decoder.ts'
import { cachedDecoder } from './cached-decoder.ts'
import { heldAdapter } from './loaded-adapter.ts'
import { attentionParts, treeParts } from '../util/attention.ts'
import { embeddingName, sourceName } from '../model/names.ts'
import { buildStages, type DecoderStages } from '../model/stages.ts'
import { quantizedWeights } from '../model/sources/quantized.ts'
import { lengthRegimes } from '../model/rope.ts'
import { blockLinearPaths } from '../model/weight-specs.ts'
import { openWeights, randomWeights } from '../model/sources/checkpoint.ts'
import { loadWidened, type WeightSource } from '../model/sources/source.ts'
import { canSlice, inSlices } from '../storage/in-slices.ts'
import { heldAs, type ProgramChoice, programKey, type StorageChoice } from './held.ts'
import { isFloat, isFloatStorage, isSliced, type Storage, type StoredWeight } from '../storage/stored.ts'
import type { Trainable } from '../engine/trainable.ts'
import type { TensorSource } from '../formats/safetensors.ts'
import { type FloatDtype, isFloat8 } from '../util/dtype.ts'
import { LowrankError } from '../util/errors.ts'
import { elements } from '../util/shape.ts'

export interface DecoderOptions {
  /** Folder of the base model. */
  readonly model: string
  /** Its weights, where they are not those that lie there; closed with the decoder. */
  readonly source?: WeightSource | undefined
  /** Folder of a PEFT adapter to put on top. */
  readonly adapter?: string | undefined
  /** Computing threads; by default one for each core. */
  readonly threads?: number | undefined
  /** How the linear layers of the base model are quantized as it is read. */
  readonly quantization?: Quantization | undefined
  /** What is trained: nothing when left out. */
  readonly training?:
    | {
        /** A new adapter, or (undefined) every weight. */
        readonly lora: LoraConfig | undefined
        readonly init: 'pretrained' | 'random'
        readonly seed: number
        /** Share of each label that is spread over the vocabulary; 0 by default. Evaluations know nothing of it. */
        readonly labelSmoothing?: number
      }
    | undefined
}

/** What is taken where nothing is trained, and what is not said otherwise. */
export const frugal: MemoryChoice = {
  activations: 'recompute',
  expandWeights: false,
  headRows: 128,
  matmulPrecision: 'highest',
}

export type OpenOptions = DecoderOptions & { readonly choice?: Partial<MemoryChoice> | undefined }

/** Opens the weights of a base model, puts an adapter on top, and makes what is trained trainable. */
export async function openDecoder(options: OpenOptions): Promise<OpenDecoder> {
  const prepared = await PreparedDecoder.open(options)
  try {
    return await prepared.load({ ...frugal, ...options.choice })
  } catch (error) {
    await prepared.close()
    throw error
  }
}

/** A decoder ready to compute: programs and weights. */
export interface OpenDecoder {
  readonly config: DecoderConfig
  readonly pipeline: Pipeline
  /** Makes what generates with these weights, as they are now. */
  readonly generation: () => Promise<{ readonly decoder: CachedDecoder; readonly adapter: LoadedAdapter }>
  /** What is trained, by name. */
  readonly trainables: ReadonlyMap<string, Trainable>
  /** Equal for lengths of examples that see positions alike; undefined where all do. */
  readonly regimeOf: ((length: number) => string) | undefined
  /** The adapter, if there is one. */
  readonly lora: LoraConfig | undefined
  readonly adaptation: Adaptation
  /** Where a whole model is trained, what else it has: see `WeightSource`. To be read until `close`, wherever its files have gone. */
  readonly beside: readonly TensorSource[]
  /** The dtype in which the checkpoint stores a weight; F32 for a quantized one. */
  readonly storage: (name: string) => FloatDtype
  /** Number of elements of all weights, the trained ones included. */
  readonly parameters: number
  readonly threads: number
  readonly close: () => Promise<void>
}

/** A weight that the programs of a decoder read. */
export interface WantedWeight {
  readonly name: string
  readonly shape: readonly number[]
  readonly storage: Storage
  readonly trainable: boolean
  /** The block it belongs to; undefined for embedding and head. */
  readonly block: number | undefined
}

/**
 * A base model with what is put on top: its files are open and checked, but nothing large was read. `load` closes the files, unless it
 * fails or is never called: call `close` then.
 */
export class PreparedDecoder {
  readonly config: DecoderConfig
  readonly lora: LoraConfig | undefined
  readonly adaptation: Adaptation
  readonly quantization: Quantization | undefined
  /** Whether blocks can be read again and again at little cost: not where each reading would quantize them again. */
  readonly streamable: boolean
  readonly threads: number
  readonly #o: DecoderOptions
  readonly #source: WeightSource
  readonly #adapter: Adapter | undefined
  /** Those that were asked for, which a plan does again and again, and who loads what was planned: some 2 MB for each choice. */
  readonly #stages = new Map<string, DecoderStages>()
  /** Read when the whole model is written. */
  readonly #beside: readonly TensorSource[] = []
  /** Names of the weights of linear layers in blocks. */
  readonly #linear: ReadonlySet<string>

  private constructor(options: DecoderOptions, base: WeightSource, adapter: Adapter | undefined) {
    const { model, quantization, training } = options
    this.#o = options
    this.threads = options.threads ?? defaultThreads()
    this.#adapter = adapter
    this.config = base.config
    this.#linear = new Set(blockLinearPaths(base.config).map((path) => `${path}.weight`))
    // An adapter that is trained further keeps its own shape.
    this.lora = adapter?.config ?? training?.lora
    if (training !== undefined && this.lora === undefined) {
      refuseQuantized(model, base.quantization)
      this.#beside = base.beside
      refuseScaled(model, base)
    }
    if (training !== undefined) refuseDropout(model, base.config)
    this.adaptation =
      this.lora !== undefined
        ? adaptWithLora(base, this.lora, { loaded: adapter !== undefined })
        : training === undefined
          ? frozen
          : trainEverything(base)
    this.#source = quantization === undefined ? base : quantizedWeights(base, quantization, this.adaptation.trainable)
    this.quantization = this.#source.quantization
    this.streamable = base.quantization === this.quantization && training?.init !== 'random'
  }

  static async open(options: DecoderOptions): Promise<PreparedDecoder> {
    const { model, source, training } = options
    const base =
      source ??
      (training?.init === 'random'
        ? randomWeights(await readDecoderConfig(model), training.seed)
        : await openWeights(model))
    let adapter: Adapter | undefined
    try {
      adapter = options.adapter === undefined ? undefined : await readAdapter(options.adapter)
      const prepared = new PreparedDecoder(options, base, adapter)
      if (adapter !== undefined) await checkAllUsed(adapter, base, prepared.adaptation)
      return prepared
    } catch (error) {
      await base.close()
      await adapter?.tensors.close()
      throw error
    }
  }

  /** See `lengthRegimes`. */
  get regimeOf(): OpenDecoder['regimeOf'] {
    return lengthRegimes(this.config)
  }

  /** All programs; `trees`: those for micro-batches whose rows share what their examples begin with. */
  stages(choice: ProgramChoice, { trees = false }: { readonly trees?: boolean } = {}): DecoderStages {
    const { training } = this.#o
    const key = `${programKey(choice)} ${trees}`
    const known = this.#stages.get(key)
    if (known !== undefined) return known
    const built = buildStages({
      config: this.config,
      policy: {
        trainable: (name) => training !== undefined && this.adaptation.trainable(name),
        storage: (name) => this.#storage(name, choice),
      },
      activations: choice.activations,
      adapterOf: this.adaptation.adapterOf,
      separateHead: this.adaptation.separateHead,
      trees,
      labelSmoothing: training?.labelSmoothing,
    })
    this.#stages.set(key, built)
    return built
  }

  /** Every weight that the stages read, once. */
  wanted(stages: DecoderStages): WantedWeight[] {
    const { vocabSize, hiddenSize } = this.config
    const name = embeddingName(this.config)
    const embedding = {
      name,
      shape: [vocabSize, hiddenSize],
      storage: this.#storage(name),
      trainable: stages.trainsEmbedding,
      block: undefined,
    }
    const found = new Map<string, WantedWeight>([[name, embedding]])
    ;[...stages.blocks, stages.head].forEach((stage, i) => {
      const block = stage === stages.head ? undefined : i
      for (const { name, shape, storage, trainable } of stage.parameters) {
        // The head of a tied model reads the embedding, in the form in which it wants it.
        found.set(name, { name, shape, storage, trainable, block })
      }
    })
    return [...found.values()]
  }

  /** The dtype in which the checkpoint stores a weight; F32 for a quantized one. */
  savedAs(name: string): FloatDtype {
    const storage = this.#source.storage(name)
    return isFloatStorage(storage) ? storage : 'F32'
  }

  /** How the frozen weights of linear layers are stored of which slices can be made; undefined where there are none. */
  get frozenStorage(): Storage | undefined {
    const frozen = [...this.#linear].filter((name) => !this.adaptation.trainable(name))
    return frozen.map((name) => this.#source.storage(sourceName(this.config, name))).find(canSlice)
  }

  /** Every weight of the base model. */
  get specs(): WeightSource['specs'] {
    return this.#source.specs
  }

  /** Where a whole model is trained, what else it has: see `WeightSource`. */
  get beside(): readonly TensorSource[] {
    return this.#beside
  }

  /** Reads the weights and makes the decoder ready. `profile` records what its programs take. */
  async load(choice: MemoryChoice, { profile }: { readonly profile?: RuntimeProfile } = {}): Promise<OpenDecoder> {
    const { config, lora, adaptation } = this
    const { threads } = this
    const stages = this.stages(choice)
    const wanted = this.wanted(stages)
    const onDisk = (weight: WantedWeight): boolean =>
      choice.streamed !== undefined && weight.block !== undefined && !adaptation.trainable(weight.name)
    const resident = new Map<string, StoredWeight>()
    const trainables = new Map<string, Trainable>()
    for (const weight of wanted) {
      if (onDisk(weight)) continue
      const loaded = await this.#load(weight)
      resident.set(weight.name, loaded)
      if (weight.trainable && isFloat(loaded) && loaded.data instanceof Float32Array) {
        const { data, shape } = loaded
        trainables.set(weight.name, { name: weight.name, shape, data, gradient: new Float32Array(data.length) })
      }
    }
    await this.#adapter?.tensors.close()
    const streamed = wanted.filter(onDisk)
    const weights = this.#store(resident, streamed)
    const reads = streamed.length > 0 || this.#beside.length > 0
    if (!reads) await this.#source.close()
    const runtime = new Runtime({
      threads,
      // An arena keeps what its programs have ever taken, and more, since it doubles as it grows: 5 % faster, but not frugal.
      arenas: choice.activations === 'keep',
      // A run that goes on, or a step that is computed again, may have begun on a machine with fast products of integers.
      unsignedIntegers: choice.matmulPrecision === 'high' && !(await integerProductsAreExact(threads)),
      profile,
    })
    const pipeline = new Pipeline({
      runtime,
      blocks: stages.blocks,
      treeBlocks: () => this.stages(choice, { trees: true }).blocks,
      head: stages.head,
      weights,
      group: choice.streamed?.group ?? 1,
      embedding: { name: embeddingName(config), trainable: stages.trainsEmbedding, scale: config.embeddingScale },
      kinds: positionKinds(config),
      attentionParts: { rows: attentionParts, trees: treeParts },
      headRows: choice.headRows,
    })
    const storage = (name: string): Storage => this.#storage(name, choice)
    return {
      config,
      pipeline,
      generation: async () => ({
        // Block by block, so that no more weights are unpacked or read from disk at once than in training.
        decoder: cachedDecoder({ config, runtime, weights, form: { storage, parts: 'blocks', separateHead: false } }),
        adapter: await heldAdapter(this.#source, adaptation, resident),
      }),
      trainables,
      regimeOf: this.regimeOf,
      lora,
      adaptation,
      beside: this.#beside,
      storage: (name) => this.savedAs(name),
      parameters: wanted.reduce((total, { shape }) => total + elements(shape), 0),
      threads,
      close: async () => {
        await runtime.close()
        if (reads) await this.#source.close()
      },
    }
  }

  async close(): Promise<void> {
    await this.#source.close()
    await this.#adapter?.tensors.close()
  }

  #store(resident: ReadonlyMap<string, StoredWeight>, streamed: readonly WantedWeight[]): WeightStore {
    if (streamed.length === 0) return residentWeights(resident)
    const names = new Map<number, string[]>()
    for (const { name, block = 0 } of streamed) names.set(block, [...(names.get(block) ?? []), name])
    return new StreamedWeights({
      resident,
      names: (block) => names.get(block) ?? [],
      load: (name, reuse) => this.#source.load(name, reuse),
    })
  }

  #storage(name: string, choice: StorageChoice = { expandWeights: false }): Storage {
    if (this.adaptation.trainable(name)) return 'F32'
    return heldAs(this.#source.storage(sourceName(this.config, name)), this.#linear.has(name), choice)
  }

  async #load({ name, shape, storage }: WantedWeight): Promise<StoredWeight> {
    if (this.adaptation.trainable(name)) {
      if (this.#adapter !== undefined) {
        const folder = this.#o.adapter ?? ''
        return readAdapterWeight(this.#adapter.tensors, { name: this.adaptation.fileName(name), shape, folder })
      }
      if (name.includes('.lora_')) return initialLoraWeight(name, shape, this.#o.training?.seed ?? 0)
    }
    const stored = sourceName(this.config, name)
    if (isSliced(storage)) return inSlices(await this.#source.load(stored), storage)
    return storage === 'F32' ? loadWidened(this.#source, stored) : this.#source.load(stored)
  }
}

/** transformers drops values while it trains such a model; with PEFT too. */
function refuseDropout(model: string, { dropout }: DecoderConfig): void {
  if (dropout === undefined) return
  throw new LowrankError(
    'model',
    `${model}/config.json: training with "${dropout.key}": ${dropout.p} is not supported`,
    {
      hint: 'Set it to 0 in config.json to train without. Evaluating and generating do not depend on it.',
    },
  )
}

function refuseQuantized(model: string, quantization: Quantization | undefined): void {
  if (quantization === undefined) return
  throw new LowrankError(
    'config',
    `method full trains every weight, but ${model} is ${quantizationText(quantization)}`,
    { hint: 'Train an adapter (method lora), or name the unquantized model.' },
  )
}

/** A whole model is written in floats, and its config.json says nothing of scales any more. */
function refuseScaled(model: string, { config, beside }: WeightSource): void {
  const scaled = config.quantization && beside.find(({ dtype }) => isFloat8(dtype))
  if (scaled === undefined) return
  throw new LowrankError(
    'config',
    `method full writes a whole model in floats, but ${model} has ${scaled.name} in ${scaled.dtype}, which is not read`,
    { hint: 'Train an adapter (method lora), or name the model in floats.' },
  )
}
