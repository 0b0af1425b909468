import { setTimeout as sleep } from 'node:timers/promises'
import { parentPort, workerData } from 'node:worker_threads'
import type { EvalConfig, QuantizeConfig, SelftestConfig } from '../config/index.ts'
import { type FinetuneInput, runFinetune } from '../tasks/finetune.ts'
import { openModel, type OpenModel, type OpenOptions } from '../session/open.ts'
import type { EvaluationResult, TrainEvent } from '../train/events.ts'
import { runEvaluation } from '../tasks/evaluate.ts'
import { runQuantize, type QuantizeResult } from '../tasks/quantize.ts'
import { runReplay, type ReplayInput, type ReplayResult } from '../tasks/replay.ts'
import { runSelftest, type SelftestResult } from '../tasks/selftest/selftest.ts'
import { generateGreedy } from '../generate/greedy.ts'
import { tokenizePrompt } from '../text/pairs.ts'
import { LowrankError, internalError, type ErrorCode } from '../util/errors.ts'
import { isOutOfMemory, memoryError, smallerHint } from '../util/limits.ts'
import { SharedState } from '../util/shared-state.ts'

/** What the main thread says, besides what is in `SharedState`. `close`: end the thread after the call. */
export type Request =
  { readonly type: 'call'; readonly task: keyof Tasks; readonly input: unknown } | { readonly type: 'close' }

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

type Emit = (event: TrainEvent) => Promise<void>

/**
 * Everything the compute thread does; `emit` reports an event, and waits while many are not asked for. `generate` is about the model that
 * `open` loaded.
 */
export interface Tasks {
  readonly finetune: (input: FinetuneInput, emit: Emit) => Promise<void>
  readonly evaluate: (config: EvalConfig, emit: Emit) => Promise<EvaluationResult>
  readonly quantize: (config: QuantizeConfig) => Promise<QuantizeResult>
  readonly replay: (input: ReplayInput, emit: Emit) => Promise<ReplayResult>
  readonly selftest: (config: SelftestConfig, emit: Emit) => Promise<SelftestResult>
  readonly open: (options: OpenOptions) => Promise<void>
  readonly generate: (input: GenerateInput) => Promise<string>
}

const state = new SharedState((workerData as { readonly state: SharedArrayBuffer }).state)
const cancelled = (): boolean => state.cancelled
let model: OpenModel | undefined

const tasks: Tasks = {
  finetune: async (input, emit) => {
    for await (const event of runFinetune(input, cancelled)) await emit(event)
  },
  evaluate: (config, emit) => runEvaluation(config, cancelled, (message) => void emit({ type: 'status', message })),
  quantize: (config) => runQuantize(config, cancelled),
  replay: (input, emit) => runReplay(input, cancelled, (message) => void emit({ type: 'status', message })),
  selftest: (config, emit) => runSelftest(config, cancelled, (message) => void emit({ type: 'status', message })),
  open: async (options) => {
    model = await openModel(options, cancelled)
  },
  generate: async ({ prompt, maxNewTokens }) => {
    if (model === undefined) throw internalError('generate before open')
    const ids = await tokenizePrompt(model.tokenizer, prompt)
    const text = await generateGreedy({ ...model, ids, maxNewTokens, cancelled })
    if (cancelled()) throw new LowrankError('cancelled', 'the generation was cancelled')
    return text
  },
}

/** Events that a task may be ahead of who asks for them. */
const ahead = 100
let sent = 0

async function answer(request: Request & { readonly type: 'call' }): Promise<void> {
  const send = (reply: Reply): void => parentPort?.postMessage(reply)
  const emit: Emit = async (event) => {
    send({ type: 'event', event })
    sent++
    // Nobody asks for a run that was left in the middle of its events: it does not go on until somebody does.
    while (sent - state.taken > ahead && !state.cancelled) await sleep(20)
  }
  state.working = true
  try {
    const task = tasks[request.task] as (input: unknown, emit: Emit) => Promise<unknown>
    send({ type: 'return', value: await task(request.input, emit) })
  } catch (error) {
    send(describe(error))
  } finally {
    state.working = false
  }
}

function describe(thrown: unknown): Reply {
  // Node.js's own arrays fail with an error of its own, wherever they are made.
  const ours = thrown instanceof LowrankError || !isOutOfMemory(thrown)
  const error = ours ? thrown : memoryError('while computing', thrown, smallerHint)
  const known = error instanceof LowrankError ? error : systemError(error)
  const message = error instanceof Error ? error.message : String(error)
  return {
    type: 'error',
    code: known?.code ?? 'internal',
    message: known === undefined ? `internal: ${message}` : message,
    ...(known?.hint === undefined ? {} : { hint: known.hint }),
    ...(error instanceof Error && error.stack !== undefined ? { stack: error.stack } : {}),
  }
}

/** Files and processes fail for reasons of the machine, which the message of the system says. */
function systemError(error: unknown): LowrankError | undefined {
  return error instanceof Error && 'syscall' in error
    ? new LowrankError('io', error.message, { cause: error })
    : undefined
}

let work = Promise.resolve()
parentPort?.on('message', (request: Request) => {
  if (request.type === 'call') work = answer(request)
  // Without the port nothing keeps the thread alive.
  if (request.type === 'close') void work.then(() => parentPort?.close())
})
