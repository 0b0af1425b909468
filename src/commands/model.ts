import { z } from 'zod'
import { reading } from '../config/groups/data.ts'
import { generation, held } from '../config/groups/generation.ts'
import { machine } from '../config/groups/machine.ts'
import { openedModel } from '../config/groups/model.ts'
import { heldBase } from '../config/groups/quantization.ts'
import { checkCall, checkText, heldRules, optionSet } from '../config/index.ts'
import { name, option } from '../config/fields.ts'
import type { CompletionEvent, EmbeddingEvent, ModelInfo, TokenEvent } from '../generate/events.ts'
import { isJsonObject } from '../formats/json.ts'
import { promptOf, type Prompt } from '../text/prompts.ts'
import { isProblem } from '../text/shapes/sample.ts'
import { closedError, type ComputeThread } from '../thread/thread.ts'
import { LowrankError } from '../util/errors.ts'
import { resultOf, type StatusEvent } from '../util/task.ts'
import { type CallOptions, openThread, type StatusOptions } from './compute.ts'

export type { ModelInfo, Prompt }

const loadOptions = optionSet(
  z.strictObject({
    ...openedModel,
    ...held,
    ...heldBase,
    chatTemplate: reading.chatTemplate,
    templateDate: reading.templateDate,
    threads: machine.threads,
  }),
  heldRules,
)

const oneAdapter = name.nullable()

const generateOptions = optionSet(
  z.strictObject({
    ...generation,
    adapter: option(z.union([oneAdapter, z.array(oneAdapter)]).optional(), {
      group: 'Generation',
      description: 'Which of the loaded adapters, or one for each prompt; null: the base model',
      unset: 'the one with which the model was loaded',
    }),
  }),
)

const embedOptions = optionSet(
  z.strictObject({
    adapter: option(oneAdapter.optional(), {
      group: 'Generation',
      description: 'Which of the loaded adapters; null: the base model',
      unset: 'the one with which the model was loaded',
    }),
  }),
)

/** Options of `loadModel` as a user passes them. */
export type LoadModelOptions = z.input<typeof loadOptions.schema>

/** Options of `generate` and `stream` as a user passes them. */
export type GenerateOptions = z.input<typeof generateOptions.schema>

/** Options of `embed` as a user passes them. */
export type EmbedOptions = z.input<typeof embedOptions.schema>

/** A model in memory, in a thread of its own. Call `close()` when done. */
export class Model {
  readonly info: ModelInfo
  readonly #thread: ComputeThread
  #busy: Promise<unknown> = Promise.resolve()
  #closed = false

  /** Use `loadModel`. */
  constructor(thread: ComputeThread, info: ModelInfo) {
    this.info = info
    this.#thread = thread
  }

  /**
   * Continues a prompt, or several in one batch: a text as it is, or a conversation `{ messages, tools? }`, which is answered. Calls are
   * answered one after another.
   *
   * @throws LowrankError `config`: an option is wrong, or a prompt is none; `usage`: the model is closed; `cancelled`.
   */
  async generate(prompt: Prompt, options?: GenerateOptions, call?: CallOptions): Promise<string>
  async generate(prompts: readonly Prompt[], options?: GenerateOptions, call?: CallOptions): Promise<string[]>
  async generate(
    prompt: Prompt | readonly Prompt[],
    options: GenerateOptions = {},
    call: CallOptions = {},
  ): Promise<string | string[]> {
    const texts: string[] = []
    for await (const event of this.stream(prompt, options, call)) {
      if (event.type === 'completion') texts.push(event.text)
    }
    return isList(prompt) ? texts : (texts[0] ?? '')
  }

  /** The same as it comes: an event for each piece of text, and one for each completion. Leaving the loop ends the generation. */
  async *stream(
    prompt: Prompt | readonly Prompt[],
    options: GenerateOptions = {},
    call: CallOptions = {},
  ): AsyncGenerator<TokenEvent | CompletionEvent, void> {
    const prompts = isList(prompt)
      ? prompt.map((one, i) => checkPrompt(one, `prompts[${i}]`))
      : [checkPrompt(prompt, 'prompt')]
    const { adapter, ...settings } = generateOptions.parse(options)
    checkCall(call, ['signal'])
    if (Array.isArray(adapter) && adapter.length !== prompts.length) {
      throw new LowrankError('config', `adapter: a list of ${adapter.length} for ${prompts.length} prompts`)
    }
    const adapters = prompts.map((_, i) => (Array.isArray(adapter) ? adapter[i] : adapter))
    const input = { prompts, adapters, ...settings }
    yield* this.#inTurn((signal) => this.#thread.call('model generate', input, { signal }), call.signal)
  }

  /**
   * Embeds texts: what each means to the model, as a vector [hidden] of length 1, so that the product of two vectors is the cosine between
   * them. It is the mean over the text's positions of transformers' `last_hidden_state`, the rows that the head reads. A text is taken as it
   * is, with the tokens that the tokenizer puts before one. Texts of similar length are computed together.
   *
   * @throws LowrankError `config`: the model was loaded with a precision that is not exact, a text is none, empty, or longer than the
   * model is made for; `usage`: the model is closed; `cancelled`.
   */
  async embed(texts: readonly string[], options: EmbedOptions = {}, call: CallOptions = {}): Promise<Float32Array[]> {
    checkTexts(texts)
    const { adapter } = embedOptions.parse(options)
    checkCall(call, ['signal'])
    const vectors: Float32Array[] = []
    const input = { texts, adapter }
    const events = this.#inTurn<EmbeddingEvent>(
      (signal) => this.#thread.call('model embed', input, { signal }),
      call.signal,
    )
    for await (const { index, vector } of events) vectors[index] = vector
    return vectors
  }

  /**
   * Loads an adapter beside the base model, to be chosen by its name. One of that name is replaced.
   *
   * @throws LowrankError `adapter`: it was refused.
   */
  async loadAdapter(name: string, adapter: string, call: StatusOptions = {}): Promise<void> {
    checkText('name', name)
    checkText('adapter', adapter)
    await this.#adapter({ name, adapter }, call)
  }

  /** Drops an adapter. */
  async unloadAdapter(name: string): Promise<void> {
    checkText('name', name)
    await this.#adapter({ name, adapter: undefined })
  }

  /** Waits for what was asked before, and frees the memory. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#busy
    // A thread that has ended by itself has nothing left to free.
    await resultOf(this.#thread.call<never, void>('model close', undefined)).catch(() => {})
    await this.#thread.close()
  }

  async #adapter(input: { readonly name: string; readonly adapter: string | undefined }, call: StatusOptions = {}) {
    checkCall(call, ['signal', 'onStatus'])
    const { signal, onStatus } = call
    const events = this.#inTurn<StatusEvent>(
      (ended) => this.#thread.call('model adapter', input, { signal: ended }),
      signal,
    )
    await resultOf(events, ({ message }) => onStatus?.(message))
  }

  /** Begins a call once the calls before it have ended. */
  async *#inTurn<Event>(
    begin: (signal: AbortSignal) => AsyncGenerator<Event, void>,
    given: AbortSignal | undefined,
  ): AsyncGenerator<Event, void> {
    if (this.#closed) throw closedError()
    const before = this.#busy
    let end: () => void = () => {}
    this.#busy = new Promise<void>((resolve) => (end = resolve))
    const left = new AbortController()
    const signal = given === undefined ? left.signal : AbortSignal.any([given, left.signal])
    let events: AsyncGenerator<Event, void> | undefined
    let ended = false
    try {
      await before
      events = begin(signal)
      for (;;) {
        const { done, value } = await events.next()
        if (done === true) break
        yield value
      }
      ended = true
    } catch (error) {
      ended = true
      throw error
    } finally {
      // Whoever leaves early ends the computation, and the thread answers nobody else before it has ended.
      left.abort()
      if (!ended && events !== undefined) await drained(events)
      end()
    }
  }
}

async function drained(events: AsyncGenerator<unknown, void>): Promise<void> {
  try {
    while ((await events.next()).done !== true);
  } catch {
    // That it was cancelled.
  }
}

function isList(prompt: Prompt | readonly Prompt[]): prompt is readonly Prompt[] {
  return Array.isArray(prompt)
}

function checkTexts(texts: unknown): asserts texts is readonly string[] {
  if (!Array.isArray(texts)) throw new LowrankError('config', 'texts: expected a list of texts')
  for (const [i, text] of texts.entries()) checkText(`texts[${i}]`, text)
}

function checkPrompt(value: unknown, what: string): Prompt {
  if (!isJsonObject(value)) {
    checkText(what, value, { empty: true })
    return value
  }
  const found = promptOf(value)
  if (isProblem(found)) throw new LowrankError('config', `${what}: ${found.problem}`)
  return found
}

/**
 * Loads a base model, with or without an adapter, to generate with.
 *
 * @throws LowrankError `config`, `model`, `adapter`: the input was refused; `io`: a model of the hub does not come; `cancelled`.
 */
export async function loadModel(options: LoadModelOptions, call: StatusOptions = {}): Promise<Model> {
  const resolved = loadOptions.parse(options)
  checkCall(call, ['signal', 'onStatus'])
  const { signal, onStatus } = call
  const thread = openThread()
  try {
    const events = thread.call<StatusEvent, ModelInfo>('model open', resolved, { signal })
    return new Model(thread, await resultOf(events, ({ message }) => onStatus?.(message)))
  } catch (error) {
    await thread.close()
    throw error
  }
}
