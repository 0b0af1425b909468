import '../util/telemetry.ts'
import { setTimeout as sleep } from 'node:timers/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { LowrankError, type ErrorCode } from '../util/errors.ts'
import { isOutOfMemory, memoryError, smallerHint } from '../util/limits.ts'
import { SharedState } from '../util/shared-state.ts'
import type { Task } from '../util/task.ts'

/** What the caller's thread says, besides what is in `SharedState`. `close`: end the thread after the call. */
export type Request =
  { readonly type: 'call'; readonly task: string; readonly input: unknown } | { readonly type: 'close' }

/** What the worker answers: any number of events, then a return or an error. */
export type Reply =
  | { readonly type: 'event'; readonly event: unknown }
  | { readonly type: 'return'; readonly value: unknown }
  | {
      readonly type: 'error'
      readonly code: ErrorCode
      readonly message: string
      readonly hint?: string
      readonly stack?: string
    }

/** Finds a task by its name, and loads it: a thread loads nothing that it does not run. */
type FindTask = (name: string) => Promise<Task<unknown, unknown, unknown>>

/** Events that a task may be ahead of who asks for them. */
const ahead = 100

/** Answers the calls of a `ComputeThread`, one after another: all that its entry file does. */
export function serve(find: FindTask): void {
  const state = new SharedState((workerData as { readonly state: SharedArrayBuffer }).state)
  const cancelled = (): boolean => state.cancelled
  const send = (reply: Reply): void => parentPort?.postMessage(reply)
  let sent = 0

  async function answer({ task, input }: Request & { readonly type: 'call' }): Promise<void> {
    state.working = true
    try {
      const program = await find(task).catch((error: unknown) => {
        // The runtime is loaded with its first task, which takes addresses.
        throw isOutOfMemory(error) ? memoryError('while the compute thread started', error, smallerHint) : error
      })
      const run = program(input, { cancelled })
      for (;;) {
        const { done, value } = await run.next()
        if (done === true) {
          send({ type: 'return', value })
          break
        }
        send({ type: 'event', event: value })
        sent++
        // Nobody asks for a run that was left in the middle of its events: it does not go on until somebody does.
        while (sent - state.taken > ahead && !state.cancelled) await sleep(20)
      }
    } catch (error) {
      send(describe(error))
    } finally {
      state.working = false
    }
  }

  let work = Promise.resolve()
  parentPort?.on('message', (request: Request) => {
    if (request.type === 'call') work = answer(request)
    // Without the port nothing keeps the thread alive.
    if (request.type === 'close') void work.then(() => parentPort?.close())
  })
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
