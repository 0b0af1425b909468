import { parentPort } from 'node:worker_threads'
import type { EvalConfig, QuantizeConfig, SelftestConfig, TrainConfig } from './config.ts'
import { runFinetune } from './finetune.ts'
import { openModel, type OpenModel, type OpenOptions } from './open.ts'
import type { EvaluationResult, TrainEvent } from './train/events.ts'
import { runEvaluation } from './evaluate.ts'
import { runQuantize, type QuantizeResult } from './quantize.ts'
import { runReplay, type ReplayInput, type ReplayResult } from './replay.ts'
import { runSelftest, type SelftestResult } from './selftest.ts'
import { generateGreedy } from './generate/greedy.ts'
import { tokenizePrompt } from './text/pairs.ts'
import { LowrankError, internalError, type ErrorCode } from './util/errors.ts'
import { isOutOfMemory, memoryError, smallerHint } from './util/limits.ts'

/** What the main thread says. `close`: cancel, and end the thread. */
export type Request =
  | { readonly type: 'call'; readonly task: keyof Tasks; readonly input: unknown }
  | { readonly type: 'cancel' }
  | { readonly type: 'close' }

/** What the worker answers: any number of events, then a return or an error. */
export type Reply =
  | { readonly type: 'event'; readonly event: TrainEvent }
  | { readonly type: 'return'; readonly value: unknown }
  | {
      readonly type: 'error'
      readonly code: ErrorCode
      readonly message: string
      readonly hint?: string
      readonly stack?: string
    }

export interface GenerateInput {
  readonly prompt: string
  readonly maxNewTokens: number
}

/** Everything the compute thread does; `emit` reports an event. `generate` is about the model that `open` loaded. */
export interface Tasks {
  readonly finetune: (config: TrainConfig, emit: (event: TrainEvent) => void) => Promise<void>
  readonly evaluate: (config: EvalConfig) => Promise<EvaluationResult>
  readonly quantize: (config: QuantizeConfig) => Promise<QuantizeResult>
  readonly replay: (input: ReplayInput, emit: (event: TrainEvent) => void) => Promise<ReplayResult>
  readonly selftest: (config: SelftestConfig, emit: (event: TrainEvent) => void) => Promise<SelftestResult>
  readonly open: (options: OpenOptions) => Promise<void>
  readonly generate: (input: GenerateInput) => Promise<string>
}

let cancelled = false
let model: OpenModel | undefined

const tasks: Tasks = {
  finetune: async (config, emit) => {
    for await (const event of runFinetune(config, () => cancelled)) emit(event)
  },
  evaluate: (config) => runEvaluation(config, () => cancelled),
  quantize: (config) => runQuantize(config, () => cancelled),
  replay: (input, emit) =>
    runReplay(
      input,
      () => cancelled,
      (message) => emit({ type: 'status', message }),
    ),
  selftest: (config, emit) =>
    runSelftest(
      config,
      () => cancelled,
      (message) => emit({ type: 'status', message }),
    ),
  open: async (options) => {
    model = await openModel(options, () => cancelled)
  },
  generate: async ({ prompt, maxNewTokens }) => {
    if (model === undefined) throw internalError('generate before open')
    const ids = await tokenizePrompt(model.tokenizer, prompt)
    const text = await generateGreedy({ ...model, ids, maxNewTokens, cancelled: () => cancelled })
    if (cancelled) throw new LowrankError('cancelled', 'the generation was cancelled')
    return text
  },
}

async function answer(request: Request & { readonly type: 'call' }): Promise<void> {
  const send = (reply: Reply): void => parentPort?.postMessage(reply)
  cancelled = false
  try {
    const task = tasks[request.task] as (input: unknown, emit: (event: TrainEvent) => void) => Promise<unknown>
    const value = await task(request.input, (event) => send({ type: 'event', event }))
    send({ type: 'return', value })
  } catch (error) {
    send(describe(error))
  }
}

function describe(thrown: unknown): Reply {
  // Node.js's own arrays fail with an error of its own, wherever they are made.
  const ours = thrown instanceof LowrankError || !isOutOfMemory(thrown)
  const error = ours ? thrown : memoryError('while computing', thrown, smallerHint)
  const known = error instanceof LowrankError ? error : undefined
  const message = error instanceof Error ? error.message : String(error)
  return {
    type: 'error',
    code: known?.code ?? 'internal',
    message: known === undefined ? `internal: ${message}` : message,
    ...(known?.hint === undefined ? {} : { hint: known.hint }),
    ...(error instanceof Error && error.stack !== undefined ? { stack: error.stack } : {}),
  }
}

let work = Promise.resolve()
parentPort?.on('message', (request: Request) => {
  if (request.type === 'call') work = answer(request)
  else cancelled = true
  // Without the port nothing keeps the thread alive.
  if (request.type === 'close') void work.then(() => parentPort?.close())
})
