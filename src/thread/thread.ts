import '../util/telemetry.ts'
import { Worker } from 'node:worker_threads'
import { LowrankError, type ErrorCode } from '../util/errors.ts'
import { checkThreads, isOutOfMemory, memoryError, smallerHint } from '../util/limits.ts'
import { SharedState } from '../util/shared-state.ts'
import type { Reply, Request } from './serve.ts'

/**
 * A worker thread that computes, so that the caller's event loop is never stuck behind a matrix product. One call at a time;
 * what the worker has loaded lives until `close`.
 */
export class ComputeThread {
  readonly #state = new SharedState()
  readonly #worker: Worker
  #ended = false

  /**
   * `entry`: the file that the thread runs, which calls `serve`.
   *
   * @throws LowrankError `config`: the system does not allow another thread; `io`: the current folder is gone.
   */
  constructor(entry: URL) {
    checkCurrentFolder()
    checkThreads('a thread to compute in', 1 + fileThreads)
    // Without the flags of the main thread, which may be of no use here (`--input-type` of a script given by `--eval`).
    const options = { execArgv: [], workerData: { state: this.#state.memory } }
    this.#worker = new Worker(entry, options)
    // Only who waits for an answer keeps the process alive.
    this.#worker.unref()
    living.add(this.#state)
    this.#worker.once('exit', () => {
      this.#ended = true
      living.delete(this.#state)
    })
  }

  /** Runs a task: yields its events and returns what it returns. Aborting `signal` asks it to end early. */
  async *call<Event, Result>(
    task: string,
    input: unknown,
    { signal }: { readonly signal?: AbortSignal | undefined } = {},
  ): AsyncGenerator<Event, Result> {
    if (this.#ended) throw closedError()
    const replies = new Queue<Reply>()
    const onMessage = (reply: Reply): void => replies.push(reply)
    const fail = (error: unknown): void => {
      // A thread takes addresses.
      const { code, message, hint } = isOutOfMemory(error)
        ? memoryError('while the compute thread started', error, smallerHint)
        : { code: 'internal' as const, message: String(error), hint: undefined }
      replies.push({ type: 'error', code, message, ...(hint === undefined ? {} : { hint }) })
    }
    const onExit = (): void => fail('internal: the compute thread ended unexpectedly')
    const onAbort = (): void => void (this.#state.cancelled = true)
    this.#worker.on('message', onMessage).on('error', fail).on('exit', onExit)
    signal?.addEventListener('abort', onAbort)
    try {
      this.#state.cancelled = signal?.aborted === true
      this.#worker.postMessage({ type: 'call', task, input } satisfies Request)
      for (;;) {
        this.#worker.ref()
        const reply = await replies.next()
        this.#worker.unref()
        if (reply.type === 'return') return reply.value as Result
        if (reply.type === 'error') throw revive(reply)
        yield reply.event as Event
        this.#state.taken++
      }
    } finally {
      signal?.removeEventListener('abort', onAbort)
      this.#worker.off('message', onMessage).off('error', fail).off('exit', onExit)
    }
  }

  /**
   * Ends the thread, asking what it computes to end early. It leaves by itself: terminated within a native call, it would take the whole
   * process with it.
   */
  async close(): Promise<void> {
    if (this.#ended) return
    const ended = new Promise<void>((resolve) => this.#worker.once('exit', () => resolve()))
    this.#worker.ref()
    this.#state.cancelled = true
    this.#worker.postMessage({ type: 'close' } satisfies Request)
    await ended
  }
}

/** The threads that have not ended. */
const living = new Set<SharedState>()

/** Milliseconds for which the end of the process waits: for a checkpoint; and for native code, in which a thread cannot be ended. */
const patience = { patience: 30_000, longest: 60_000 }

// Of `process.exit()`, an error that nobody catches, or nothing left to do: whatever ends the caller's process.
process.on('exit', () => {
  for (const state of living) state.halt(patience)
})

/** A thread of Node.js needs the current folder, which may have been removed by another program. */
function checkCurrentFolder(): void {
  try {
    process.cwd()
  } catch (cause) {
    throw new LowrankError('io', 'the current folder does not exist any more', {
      hint: 'Go to a folder that does (cd), and call it again.',
      cause,
    })
  }
}

/** Node.js reads files in so many, which it starts when it first does, and ends the process where it cannot. */
const fileThreads = 4

/** What a model that was closed answers. */
export function closedError(): LowrankError {
  return new LowrankError('usage', 'this model is closed', { hint: 'Load it again with loadModel.' })
}

function revive(reply: { code: ErrorCode; message: string; hint?: string; stack?: string }): LowrankError {
  const error = new LowrankError(reply.code, reply.message, { hint: reply.hint })
  if (reply.stack !== undefined) error.stack = reply.stack
  return error
}

/** Messages in order, waited for. */
class Queue<T> {
  readonly #items: T[] = []
  #wake: (() => void) | undefined

  push(item: T): void {
    this.#items.push(item)
    this.#wake?.()
  }

  async next(): Promise<T> {
    while (this.#items.length === 0) await new Promise<void>((resolve) => (this.#wake = resolve))
    return this.#items.shift() as T
  }
}
