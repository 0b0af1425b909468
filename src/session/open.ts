import { quantizationOf, type QuantizationOptions, type TrainConfig } from '../config/index.ts'
import { type DecoderOptions, type MemoryChoice, type OpenDecoder, PreparedDecoder } from './decoder.ts'
import type { DecoderConfig } from '../model/decoder.ts'
import { readDecoderConfig } from '../model/config.ts'
import type { LoraConfig } from '../model/peft/targets.ts'
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.ts'
import { LowrankError } from '../util/errors.ts'

export type { OpenDecoder } from './decoder.ts'

/** A decoder with its tokenizer. */
export type OpenModel = OpenDecoder & { readonly tokenizer: Tokenizer }

/** What is taken where nothing is trained, and what is not said otherwise. */
const frugal: MemoryChoice = { activations: 'recompute', expandWeights: false, headRows: 128, streamed: undefined }

export type OpenOptions = DecoderOptions & { readonly choice?: Partial<MemoryChoice> | undefined }

/** Opens a base model with its tokenizer, to evaluate it or to generate with it. */
export async function openModel(options: OpenOptions, cancelled?: () => boolean): Promise<OpenModel> {
  const tokenizer = await loadTokenizer(options.model, cancelled && { cancelled })
  checkVocabulary(tokenizer, await readDecoderConfig(options.model), options.model)
  return { ...(await openDecoder(options)), tokenizer }
}

/** Opens the weights of a base model, puts an adapter on top, and makes what is trained trainable. */
export async function openDecoder(options: OpenOptions): Promise<OpenDecoder> {
  const prepared = await PreparedDecoder.open(options)
  return loadDecoder(prepared, { ...frugal, ...options.choice })
}

/** What a run says of its model. */
type ModelConfig = Pick<
  TrainConfig,
  'model' | 'adapter' | 'threads' | 'method' | 'init' | 'seed' | 'labelSmoothingFactor'
> &
  LoraConfig &
  QuantizationOptions

/** The decoder that a training run asks for, not yet loaded. */
export async function prepareRun(config: ModelConfig): Promise<PreparedDecoder> {
  const { model, adapter, threads, method, init, seed, labelSmoothingFactor: labelSmoothing } = config
  const lora = method === 'full' ? undefined : config
  const training = { lora, init, seed, labelSmoothing }
  return PreparedDecoder.open({ model, adapter, threads, quantization: quantizationOf(config), training })
}

/** Loads a prepared decoder, or closes it. */
export async function loadDecoder(prepared: PreparedDecoder, choice: MemoryChoice): Promise<OpenDecoder> {
  try {
    return await prepared.load(choice)
  } catch (error) {
    await prepared.close()
    throw error
  }
}

/**
 * Checks that the model has a row for EOS and for what is put before each text. Other tokens of the tokenizer may be beyond its embedding
 * as long as no text uses them.
 */
export function checkVocabulary(tokenizer: Tokenizer, config: DecoderConfig, model: string): void {
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
