import type { Quantization } from './config.ts'
import { Pipeline } from './engine/pipeline.ts'
import { defaultThreads } from './engine/plan.ts'
import { Runtime } from './engine/runtime.ts'
import { residentWeights } from './engine/weights.ts'
import {
  adaptNothing,
  adaptWithLora,
  frozen,
  initialLoraWeight,
  readAdapterWeight,
  type Adaptation,
} from './model/adapt.ts'
import { readDecoderConfig, type DecoderConfig } from './model/config.ts'
import { readAdapter, type Adapter } from './model/peft.ts'
import { ropeTables } from './model/rope.ts'
import type { LoraConfig } from './model/targets.ts'
import { attentionParts, buildStages, embeddingName, type Activations } from './model/stages.ts'
import { quantizationText, quantizedWeights } from './model/quantize.ts'
import { openWeights, randomWeights } from './model/weights.ts'
import { widened } from './model/widened.ts'
import { isFloat, isFloatStorage, type Storage, type StoredWeight } from './quant/stored.ts'
import { loadTokenizer, type Tokenizer } from './text/tokenizer.ts'
import type { Trainable } from './train/optimizer.ts'
import type { FloatDtype } from './util/dtype.ts'
import { LowrankError } from './util/errors.ts'

export interface OpenOptions {
  /** Folder of the base model. */
  readonly model: string
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
        readonly activations: Activations
        /** Whether frozen weights stored in 16 bits are expanded to f32 once. */
        readonly expandWeights: boolean
      }
    | undefined
}

/** A decoder ready to compute: programs and weights. */
export interface OpenDecoder {
  readonly config: DecoderConfig
  readonly pipeline: Pipeline
  /** What is trained, by name. */
  readonly trainables: ReadonlyMap<string, Trainable>
  /** The adapter, if there is one. */
  readonly lora: LoraConfig | undefined
  readonly adaptation: Adaptation
  /** The dtype in which the checkpoint stores a weight; F32 for a quantized one. */
  readonly storage: (name: string) => FloatDtype
  /** Number of elements of all weights, the trained ones included. */
  readonly parameters: number
  readonly threads: number
  readonly close: () => Promise<void>
}

/** A decoder with its tokenizer. */
export type OpenModel = OpenDecoder & { readonly tokenizer: Tokenizer }

/**
 * Most rows that go through the output head at once. Logits of 256 rows over a vocabulary of 49,152 are 50 MB, and there are three such
 * tensors; fewer rows pay more for reading the weight.
 */
const headRows = { keep: 512, recompute: 256 } as const

/** Opens a base model with its tokenizer, which may have been loaded before. */
export async function openModel(options: OpenOptions & { readonly tokenizer?: Tokenizer }): Promise<OpenModel> {
  const tokenizer = options.tokenizer ?? (await loadTokenizer(options.model))
  checkVocabulary(tokenizer, await readDecoderConfig(options.model), options.model)
  return { ...(await openDecoder(options)), tokenizer }
}

/** Opens the weights of a base model, puts an adapter on top, and makes what is trained trainable. */
export async function openDecoder(options: OpenOptions): Promise<OpenDecoder> {
  const { model, training } = options
  const threads = options.threads ?? defaultThreads()
  const activations = training?.activations ?? 'recompute'
  const base =
    training?.init === 'random'
      ? randomWeights(await readDecoderConfig(model), training.seed)
      : await openWeights(model)
  let adapter: Adapter | undefined
  try {
    adapter = options.adapter === undefined ? undefined : await readAdapter(options.adapter)
    const { config } = base
    // An adapter that is trained further keeps its own shape.
    const lora = adapter?.config ?? training?.lora
    if (training !== undefined && lora === undefined) refuseQuantized(model, base.quantization)
    const adaptation =
      lora !== undefined
        ? adaptWithLora(base, lora, { loaded: adapter !== undefined })
        : training === undefined
          ? frozen
          : adaptNothing
    const added = (name: string): boolean => adaptation.trainable(name)
    const source =
      options.quantization === undefined ? base : quantizedWeights(base, options.quantization, adaptation.trainable)
    const stored = (name: string): Storage => source.storage(sourceName(config, name))
    const expands = (name: string): boolean =>
      added(name) || (training?.expandWeights === true && isFloatStorage(stored(name)))
    const load = async (name: string): Promise<StoredWeight> => {
      const weight = await source.load(sourceName(config, name))
      return expands(name) ? widened(weight) : weight
    }
    const stages = buildStages({
      config,
      policy: {
        trainable: (name) => training !== undefined && adaptation.trainable(name),
        storage: (name) => (expands(name) ? 'F32' : stored(name)),
      },
      activations,
      adapterOf: adaptation.adapterOf,
      separateHead: adaptation.separateHead,
    })
    const wanted = [
      { name: embeddingName, shape: [config.vocabSize, config.hiddenSize] },
      ...[...stages.blocks, stages.head].flatMap((stage) => stage.parameters),
    ]
    const weights = new Map<string, StoredWeight>()
    const trainables = new Map<string, Trainable>()
    for (const { name, shape } of wanted) {
      if (weights.has(name)) continue
      const weight = !added(name)
        ? await load(name)
        : adapter !== undefined
          ? await readAdapterWeight(adapter.tensors, {
              name: adaptation.peftName(name),
              shape,
              folder: options.adapter ?? '',
            })
          : name.includes('.lora_')
            ? initialLoraWeight(name, shape, training?.seed ?? 0)
            : await load(name)
      weights.set(name, weight)
      if (training !== undefined && added(name) && isFloat(weight) && weight.data instanceof Float32Array) {
        const { data } = weight
        trainables.set(name, { name, shape, data, gradient: new Float32Array(data.length) })
      }
    }
    const runtime = new Runtime({ threads })
    const pipeline = new Pipeline({
      runtime,
      blocks: stages.blocks,
      head: stages.head,
      weights: residentWeights(weights),
      group: 1,
      embedding: { name: embeddingName, trainable: stages.trainsEmbedding },
      rope: (positions) => ropeTables(config.rope, config.headDim, positions),
      headDim: config.headDim,
      attentionParts,
      headRows: headRows[activations],
    })
    const parameters = [...weights.values()].reduce((total, { shape }) => total + shape.reduce((n, d) => n * d, 1), 0)
    return {
      config,
      pipeline,
      trainables,
      lora,
      adaptation,
      storage: (name) => {
        const storage = base.storage(name)
        return isFloatStorage(storage) ? storage : 'F32'
      },
      parameters,
      threads,
      close: () => runtime.close(),
    }
  } finally {
    await base.close()
    await adapter?.tensors.close()
  }
}

function refuseQuantized(model: string, quantization: Quantization | undefined): void {
  if (quantization === undefined) return
  throw new LowrankError(
    'config',
    `method full trains every weight, but ${model} is ${quantizationText(quantization)}`,
    {
      hint: 'Train an adapter (method lora), or name the unquantized model.',
    },
  )
}

/** The checkpoint's name of a weight: a tied head that was separated starts as the embedding. */
function sourceName(config: DecoderConfig, name: string): string {
  return name === 'lm_head.weight' && config.tieWordEmbeddings ? embeddingName : name
}

function checkVocabulary(tokenizer: Tokenizer, config: DecoderConfig, model: string): void {
  if (tokenizer.vocabSize <= config.vocabSize) return
  throw new LowrankError(
    'model',
    `${model}: the tokenizer has ${tokenizer.vocabSize} tokens, but the model's embedding ${config.vocabSize} rows`,
    { hint: 'Use the tokenizer that belongs to the model, or resize the embedding in Python first.' },
  )
}
