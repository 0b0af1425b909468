import type { GenerationSettings } from '../config/index.ts'
import type { LoadedAdapter } from '../engine/cached/adapters.ts'
import { Completions } from '../generate/completions.ts'
import { adapterName } from '../generate/chat.ts'
import { samplingOptions, samplingText } from '../generate/defaults.ts'
import type { CompletionEvent, EmbeddingEvent, ModelInfo, TokenEvent } from '../generate/events.ts'
import { type OpenGeneratorOptions, openGenerator, type TextGenerator } from '../generate/open.ts'
import { fromHub } from '../hub/resolve.ts'
import { baseFor } from '../runs/adapter-base.ts'
import type { QuantizationOptions } from '../config/index.ts'
import type { Prompt } from '../text/prompts.ts'
import { internalError, LowrankError } from '../util/errors.ts'
import type { StatusEvent, TaskContext } from '../util/task.ts'

/** The model that the calls of a `Model` are about: a thread has one. */
let model:
  | { readonly name: string; readonly generator: TextGenerator; readonly adapters: Map<string, LoadedAdapter> }
  | undefined

/** What the adapter is called that a model was loaded with. */
const defaultName = 'default'

type OpenOptions = Omit<OpenGeneratorOptions, 'cancelled' | 'quantization'> & QuantizationOptions

/** Loads a model, which stays in memory as long as the thread lives. */
export async function* open(given: OpenOptions, { cancelled }: TaskContext): AsyncGenerator<StatusEvent, ModelInfo> {
  const { config } = yield* fromHub(given, { cancelled })
  const quantization = yield* baseFor(config)
  const generator = await openGenerator({ ...config, quantization, cancelled })
  try {
    const adapters = new Map<string, LoadedAdapter>()
    if (config.adapter !== undefined) {
      const loaded = await generator.generation.adapter(config.adapter)
      for (const name of [defaultName, adapterName(given.adapter ?? config.adapter)]) adapters.set(name, loaded)
    }
    const { generation, template, defaults } = generator
    model = { name: config.model, generator, adapters }
    return {
      held: generation.held,
      contextLength: generation.config.maxPositionEmbeddings,
      template: template?.origin,
      sampling: samplingText(samplingOptions({}, defaults)),
    }
  } catch (error) {
    await generator[Symbol.asyncDispose]()
    throw error
  }
}

interface AdapterInput {
  readonly name: string
  /** A folder, or how the hub calls it; undefined: it is dropped. */
  readonly adapter: string | undefined
}

/** Loads an adapter beside the others, or drops one. */
export async function* adapter(
  { name, adapter: given }: AdapterInput,
  { cancelled }: TaskContext,
): AsyncGenerator<StatusEvent, void> {
  const { name: folder, generator, adapters } = opened()
  if (given === undefined) {
    chosen(name)
    adapters.delete(name)
    return
  }
  const { config } = yield* fromHub({ model: folder, adapter: given }, { cancelled })
  adapters.set(name, await generator.generation.adapter(config.adapter ?? given))
}

export interface GenerateInput extends GenerationSettings {
  readonly prompts: readonly Prompt[]
  /** The adapter of each prompt, by name; null: none. */
  readonly adapters: readonly (string | null | undefined)[]
}

/** Continues prompts with the model that was loaded. */
export async function* generate(
  { prompts, adapters, ...settings }: GenerateInput,
  { cancelled }: TaskContext,
): AsyncGenerator<TokenEvent | CompletionEvent, void> {
  const { generator } = opened()
  const loaded = adapters.map((name) => (name === null ? undefined : chosen(name)))
  const completions = new Completions(prompts)
  const tokens = generator.generate(prompts, (index) => ({ ...settings, adapter: loaded[index] }), cancelled)
  for await (const token of tokens) yield* completions.add(token)
  if (cancelled()) throw new LowrankError('cancelled', 'the generation was cancelled')
}

interface EmbedInput {
  readonly texts: readonly string[]
  /** By name; null: none. */
  readonly adapter: string | null | undefined
}

/** Embeds texts with the model that was loaded. */
export async function* embed(
  { texts, adapter: name }: EmbedInput,
  { cancelled }: TaskContext,
): AsyncGenerator<EmbeddingEvent, void> {
  const { generator } = opened()
  const loaded = name === null ? undefined : chosen(name)
  for await (const text of generator.embed(texts, loaded, cancelled)) yield { type: 'embedding', ...text }
  if (cancelled()) throw new LowrankError('cancelled', 'the embedding was cancelled')
}

/** Frees the model, and ends its tokenizer. */
export async function* close(): AsyncGenerator<never, void> {
  await model?.generator[Symbol.asyncDispose]()
  model = undefined
}

function opened(): NonNullable<typeof model> {
  if (model === undefined) throw internalError('a call before the model was opened')
  return model
}

/** An adapter by its name; without one, that with which the model was loaded, if there is one. */
function chosen(name: string | undefined): LoadedAdapter | undefined {
  const { adapters } = opened()
  const found = adapters.get(name ?? defaultName)
  if (found !== undefined || name === undefined) return found
  const known = [...adapters.keys()].map((one) => `"${one}"`).join(', ')
  throw new LowrankError(
    'config',
    `adapter: "${name}" is not loaded (${known === '' ? 'none is' : `loaded: ${known}`})`,
    {
      hint: 'loadAdapter(name, folder) loads one; null stands for the base model.',
    },
  )
}
