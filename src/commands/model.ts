import { z } from 'zod'
import { count, option } from '../config/fields.ts'
import { machine } from '../config/groups/machine.ts'
import { openedModel } from '../config/groups/model.ts'
import { checkCall, checkText, optionSet } from '../config/index.ts'
import { closedError, type ComputeThread } from '../thread/thread.ts'
import { resultOf, type StatusEvent } from '../util/task.ts'
import { openThread, type StatusOptions } from './compute.ts'

const loadOptions = optionSet(z.strictObject({ ...openedModel, threads: machine.threads }))

const generateOptions = optionSet(
  z.strictObject({
    maxNewTokens: option(count.default(128), {
      group: 'Model and data',
      description: 'Tokens to add at most; generation ends earlier with the end-of-sequence token',
    }),
  }),
)

/** Options of `loadModel` as a user passes them. */
export type LoadModelOptions = z.input<typeof loadOptions.schema>

/** Options of `generate` as a user passes them. */
export type GenerateOptions = z.input<typeof generateOptions.schema>

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
  async generate(prompt: string, options: GenerateOptions = {}): Promise<string> {
    checkText('prompt', prompt, { empty: true })
    const { maxNewTokens } = generateOptions.parse(options)
    if (this.#closed) throw closedError()
    const mine = this.#busy.then(() =>
      resultOf(this.#thread.call<never, string>('model generate', { prompt, maxNewTokens })),
    )
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
 * @throws LowrankError `config`, `model`, `adapter`: the input was refused; `io`: a model of the hub does not come; `cancelled`.
 */
export async function loadModel(options: LoadModelOptions, call: StatusOptions = {}): Promise<Model> {
  const resolved = loadOptions.parse(options)
  checkCall(call, ['signal', 'onStatus'])
  const { signal, onStatus } = call
  const thread = openThread()
  try {
    const events = thread.call<StatusEvent, void>('model open', resolved, { signal })
    await resultOf(events, ({ message }) => onStatus?.(message))
    return new Model(thread)
  } catch (error) {
    await thread.close()
    throw error
  }
}
