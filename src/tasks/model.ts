import { generateGreedy } from '../generate/greedy.ts'
import { fromHub } from '../hub/resolve.ts'
import { openSession, type OpenModel, type SessionOptions } from '../session/session.ts'
import { tokenizePrompt } from '../text/pairs.ts'
import { internalError, LowrankError } from '../util/errors.ts'
import type { StatusEvent, TaskContext } from '../util/task.ts'

/** The model that `generate` is about: a thread has one. */
let model: OpenModel | undefined

/** Loads a model, which stays in memory as long as the thread lives. */
export async function* open(options: SessionOptions, { cancelled }: TaskContext): AsyncGenerator<StatusEvent, void> {
  const { config } = yield* fromHub(options, { cancelled })
  const session = await openSession({ ...config, cancelled })
  try {
    model = await session.load()
  } catch (error) {
    await session[Symbol.asyncDispose]()
    throw error
  }
}

interface GenerateInput {
  readonly prompt: string
  readonly maxNewTokens: number
}

/** Completes a prompt with the model that was loaded. */
export async function* generate(
  { prompt, maxNewTokens }: GenerateInput,
  { cancelled }: TaskContext,
): AsyncGenerator<never, string> {
  if (model === undefined) throw internalError('generate before open')
  const ids = await tokenizePrompt(model.tokenizer, prompt)
  const text = await generateGreedy({ ...model, ids, maxNewTokens, cancelled })
  if (cancelled()) throw new LowrankError('cancelled', 'the generation was cancelled')
  return text
}
