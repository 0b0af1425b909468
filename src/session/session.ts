import { type MemoryChoice, quantizationOf, type QuantizationOptions, type TrainConfig } from '../config/index.ts'
import type { RuntimeProfile } from '../engine/onnxruntime/profile.ts'
import type { LoraConfig } from '../model/peft/targets.ts'
import type { Dataset } from '../text/dataset.ts'
import type { DataSource } from '../text/readers/index.ts'
import { SampleEncoder } from '../text/encode.ts'
import { chooseTemplate } from '../text/template/choose.ts'
import type { ChatTemplate } from '../text/template/template.ts'
import { ExampleStore } from '../text/store.ts'
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.ts'
import { internalError, LowrankError } from '../util/errors.ts'
import { type DecoderOptions, frugal, type OpenDecoder, PreparedDecoder } from './decoder.ts'
import type { ProgramChoice } from './held.ts'
import type { Workload } from './memory-items.ts'
import { readTokens, type ReadOptions } from './read-tokens.ts'
import { planMemory, type MemoryPlan, type PlanOptions } from './plan.ts'

/** A decoder with its tokenizer. */
export type OpenModel = OpenDecoder & { readonly tokenizer: Tokenizer }

export type SessionOptions = DecoderOptions & {
  /** Asked ten times a second while texts are tokenized, which ends when it says so. */
  readonly cancelled?: (() => boolean) | undefined
  /** What programs are probably wanted: they are written while the tokenizer starts. */
  readonly likely?: ProgramChoice | undefined
}

/**
 * A model on this machine: its files are open and checked, nothing large was read. It is planned and loaded on demand, and closed with the
 * block that opened it: `await using session = await openSession(...)`.
 *
 * @throws LowrankError `model`, `adapter`, `config`: what was refused, and why; `cancelled`.
 */
export async function openSession(options: SessionOptions): Promise<Session> {
  const { model, cancelled = () => false, likely } = options
  let prepared: PreparedDecoder | undefined
  let tokenizer: Tokenizer | undefined
  try {
    const meanwhile = async (): Promise<void> => {
      prepared = await PreparedDecoder.open(options)
      if (likely !== undefined) prepared.stages(likely)
    }
    tokenizer = await loadTokenizer(model, { cancelled, meanwhile })
    if (prepared === undefined) throw internalError('a tokenizer without its decoder')
    checkVocabulary(tokenizer, prepared, model)
    return new Session({ ...options, tokenizer, decoder: prepared, cancelled })
  } catch (error) {
    tokenizer?.close()
    await prepared?.close()
    throw error
  }
}

/** What a run says of its model. */
type ModelConfig = Pick<
  TrainConfig,
  'model' | 'adapter' | 'threads' | 'method' | 'init' | 'seed' | 'labelSmoothingFactor' | 'activations'
> &
  LoraConfig &
  QuantizationOptions

/** The model that a training run asks for. */
export function sessionOf(config: ModelConfig, cancelled: () => boolean): Promise<Session> {
  const { model, adapter, threads, method, init, seed, activations, labelSmoothingFactor: labelSmoothing } = config
  const training = { lora: method === 'full' ? undefined : config, init, seed, labelSmoothing }
  const likely: ProgramChoice =
    activations === 'recompute' ? frugal : { ...frugal, activations: 'keep', expandWeights: true }
  return openSession({ model, adapter, threads, quantization: quantizationOf(config), training, cancelled, likely })
}

interface SessionParts {
  readonly model: string
  readonly adapter?: string | undefined
  readonly tokenizer: Tokenizer
  readonly decoder: PreparedDecoder
  readonly cancelled: () => boolean
}

export class Session {
  readonly tokenizer: Tokenizer
  readonly decoder: PreparedDecoder
  readonly #parts: SessionParts
  readonly #read: ExampleStore[] = []
  #loaded: OpenDecoder | undefined

  /** Use `openSession`. */
  constructor(parts: SessionParts) {
    this.tokenizer = parts.tokenizer
    this.decoder = parts.decoder
    this.#parts = parts
  }

  /** What writes conversations: see `chooseTemplate`. */
  async template(options: Pick<ReadOptions, 'chatTemplate' | 'templateDate'>): Promise<ChatTemplate | undefined> {
    return chooseTemplate(this.#parts, options, this.tokenizer)
  }

  /** What tokenizes samples as `read` does. */
  async encoder(options: ReadOptions): Promise<SampleEncoder> {
    const turns = options.lastTurnOnly === true ? 'last' : 'all'
    return new SampleEncoder(this.tokenizer, { ...options, template: await this.template(options), turns })
  }

  /** Reads examples with the model's tokenizer and template. */
  async read(
    sources: readonly DataSource[],
    options: ReadOptions,
    report?: (message: string) => void,
  ): Promise<Dataset> {
    const { vocabSize } = this.decoder.config
    const { tokenizer } = this
    const template = await this.template(options)
    const { model, cancelled } = this.#parts
    const dataset = await readTokens({ ...options, model, sources, tokenizer, template, vocabSize, cancelled, report })
    if (dataset.examples instanceof ExampleStore) this.#read.push(dataset.examples)
    return dataset
  }

  /** Decides what memory is spent on: see `planMemory`. */
  plan(workload: Workload, options: PlanOptions): MemoryPlan {
    return planMemory(this.decoder, workload, options)
  }

  /** Reads the weights and makes the model ready to compute. `profile` records what its programs take. */
  async load(
    choice: Partial<MemoryChoice> = {},
    options: { readonly profile?: RuntimeProfile } = {},
  ): Promise<OpenModel> {
    this.#loaded = await this.decoder.load({ ...frugal, ...choice }, options)
    return { ...this.#loaded, tokenizer: this.tokenizer }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.tokenizer.close()
    for (const examples of this.#read) examples.close()
    await (this.#loaded ?? this.decoder).close()
  }
}

/**
 * Checks that the model has a row for EOS and for what is put before each text. Other tokens of the tokenizer may be beyond its embedding
 * as long as no text uses them.
 */
function checkVocabulary(tokenizer: Tokenizer, { config }: PreparedDecoder, model: string): void {
  const { eosId, eosSource, prefix } = tokenizer
  const found = [{ id: eosId, source: eosSource }, ...prefix.map((id) => ({ id, source: 'post_processor' }))]
  const beyond = found.find(({ id }) => id >= config.vocabSize)
  if (beyond === undefined) return
  throw new LowrankError(
    'model',
    `${model}: the token id ${beyond.id} (${beyond.source}) is beyond the model's embedding of ${config.vocabSize} rows`,
    { hint: 'Use the tokenizer that belongs to the model, or resize the embedding in Python first.' },
  )
}
