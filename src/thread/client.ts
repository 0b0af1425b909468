import {
  checkCall,
  checkText,
  generateSchema,
  loadModelSchema,
  parseEvalConfig,
  parseQuantizeConfig,
  parseOptions,
  parseSelftestConfig,
  parseTrainConfig,
  replaySchema,
  type EvalConfigInput,
  type GenerateOptionsInput,
  type LoadModelOptionsInput,
  type QuantizeConfigInput,
  type ReplayOptionsInput,
  type SelftestConfigInput,
  type TrainConfig,
  type TrainConfigInput,
} from '../config/index.ts'
import type { QuantizeResult } from '../tasks/quantize.ts'
import { errorEvent, Webhook } from '../report/sinks/webhook.ts'
import type { ReplayResult } from '../tasks/replay.ts'
import type { SelftestResult } from '../tasks/selftest/selftest.ts'
import { closedError, ComputeThread } from './thread.ts'
import type { EvaluationResult, TrainEvent } from '../train/events.ts'

export interface CallOptions {
  /** Ends the work early, with an error of code `cancelled`; a training run saves a checkpoint first. */
  readonly signal?: AbortSignal | undefined
}

export interface FinetuneOptions extends CallOptions {
  /** The file that the options are from, if they are from one: the run neither replaces nor removes it. */
  readonly configFile?: string | undefined
}

/**
 * Fine-tunes a model: `for await (const event of finetune({ model, train, outputDir })) …`. Computes in a worker thread. The
 * adapter (or, with method full, the model) is in `outputDir` when the `done` event comes.
 *
 * @throws LowrankError `config`, `data`, `model`, `adapter`: the input was refused, before anything was trained.
 */
export async function* finetune(
  config: TrainConfigInput,
  options: FinetuneOptions = {},
): AsyncGenerator<TrainEvent, void> {
  const resolved = parseTrainConfig(config)
  checkCall(options, ['signal', 'configFile'])
  const thread = new ComputeThread()
  try {
    const { configFile } = options
    yield* withWebhook(resolved, thread.call('finetune', { ...resolved, configFile }, options))
  } finally {
    await thread.close()
  }
}

/** The events of a run, posted to its webhook too, if it has one: from here, since the thread that computes is busy for seconds. */
async function* withWebhook(
  { reportTo, webhookUrl, ...config }: TrainConfig,
  events: AsyncGenerator<TrainEvent, void>,
): AsyncGenerator<TrainEvent, void> {
  if (webhookUrl === undefined || !reportTo.includes('webhook')) return yield* events
  const webhook = new Webhook({ webhookUrl, ...config })
  try {
    for await (const event of events) {
      webhook.event(event)
      // Nothing may follow `done`, so that what there is to say of the last events comes before it.
      if (event.type === 'done') await webhook.flush()
      for (const message of webhook.warnings()) yield { type: 'warning', message }
      yield event
    }
  } catch (error) {
    webhook.event(errorEvent(error))
    await webhook.flush()
    throw error
  } finally {
    webhook.close()
  }
}

/** Receives what a long call is about to do. */
export interface StatusOptions extends CallOptions {
  readonly onStatus?: ((message: string) => void) | undefined
}

/** Loss, perplexity and token accuracy of a model, with or without an adapter, on a dataset. */
export async function evaluate(config: EvalConfigInput, options: StatusOptions = {}): Promise<EvaluationResult> {
  const resolved = parseEvalConfig(config)
  checkCall(options, ['signal', 'onStatus'])
  const thread = new ComputeThread()
  try {
    return await last(thread.call('evaluate', resolved, options), options.onStatus)
  } finally {
    await thread.close()
  }
}

/**
 * Quantizes a model to 4 bits (nf4 with double quantization by default) or 8, in the layout of bitsandbytes: a
 * folder that transformers loads too, and that serves as `model` here.
 */
export async function quantize(config: QuantizeConfigInput, options: CallOptions = {}): Promise<QuantizeResult> {
  const resolved = parseQuantizeConfig(config)
  checkCall(options, ['signal'])
  const thread = new ComputeThread()
  try {
    return await last(thread.call('quantize', resolved, options))
  } finally {
    await thread.close()
  }
}

/**
 * Computes a step of an earlier run (its output folder) again, and reports the loss of each of its examples. The loss of the step equals the
 * recorded one to the last bit, unless weights are given by `at`.
 */
export async function replay(
  run: string,
  options: ReplayOptionsInput,
  callOptions: StatusOptions = {},
): Promise<ReplayResult> {
  checkText('run', run)
  const input = { ...parseOptions(replaySchema, options), run }
  checkCall(callOptions, ['signal', 'onStatus'])
  const thread = new ComputeThread()
  try {
    return await last(thread.call('replay', input, callOptions), callOptions.onStatus)
  } finally {
    await thread.close()
  }
}

/**
 * Tries on the user's own model and machine that training computes what it promises: gradients against differences of losses, and what
 * must make no difference. A check that fails is a result, not an error.
 */
export async function selftest(config: SelftestConfigInput, options: StatusOptions = {}): Promise<SelftestResult> {
  const resolved = parseSelftestConfig(config)
  checkCall(options, ['signal', 'onStatus'])
  const thread = new ComputeThread()
  try {
    return await last(thread.call('selftest', resolved, options), options.onStatus)
  } finally {
    await thread.close()
  }
}

/** A model in memory, in a thread of its own. Call `close()` when done. */
export class Model {
  readonly #thread: ComputeThread
  #busy: Promise<unknown> = Promise.resolve()
  #closed = false

  /** Use `loadModel`. */
  constructor(thread: ComputeThread) {
    this.#thread = thread
  }

  /**
   * The most likely completion of a prompt. Calls are answered one after another.
   *
   * @throws LowrankError `config`: an option is wrong, or the prompt is no text; `usage`: the model is closed.
   */
  async generate(prompt: string, options: GenerateOptionsInput = {}): Promise<string> {
    checkText('prompt', prompt, { empty: true })
    const { maxNewTokens } = parseOptions(generateSchema, options)
    if (this.#closed) throw closedError()
    const mine = this.#busy.then(() => last(this.#thread.call('generate', { prompt, maxNewTokens })))
    this.#busy = mine.catch(() => {})
    return await mine
  }

  /** Waits for what was asked before, and frees the memory. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#busy
    await this.#thread.close()
  }
}

/**
 * Loads a base model, with or without an adapter, to generate with.
 *
 * @throws LowrankError `config`, `model`, `adapter`: the input was refused.
 */
export async function loadModel(options: LoadModelOptionsInput): Promise<Model> {
  const resolved = parseOptions(loadModelSchema, options)
  const thread = new ComputeThread()
  try {
    await last(thread.call('open', resolved))
    return new Model(thread)
  } catch (error) {
    await thread.close()
    throw error
  }
}

/** What a call returns in the end; `onStatus` receives the status messages before. */
async function last<T>(generator: AsyncGenerator<TrainEvent, T>, onStatus?: (message: string) => void): Promise<T> {
  for (;;) {
    const { done, value } = await generator.next()
    if (done === true) return value
    if (value.type === 'status') onStatus?.(value.message)
  }
}
