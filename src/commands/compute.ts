import { ComputeThread } from '../thread/thread.ts'

/** What a call takes beside its options. */
export interface CallOptions {
  /** Ends the work early, with an error of code `cancelled`; a training run saves a checkpoint first. */
  readonly signal?: AbortSignal | undefined
}

/** Receives what a long call is about to do. */
export interface StatusOptions extends CallOptions {
  readonly onStatus?: ((message: string) => void) | undefined
}

/** Runs a task by its name, somewhere else than in the thread that asks for it. */
export type Compute = <Event, Result>(
  task: string,
  config: unknown,
  options: CallOptions,
) => AsyncGenerator<Event, Result>

/** A thread that finds the tasks of all commands, and those of `loadModel`. */
export function openThread(): ComputeThread {
  return new ComputeThread(new URL('./worker.js', import.meta.url))
}

/** Runs a task in a thread of its own, which ends with it. */
export const inThread: Compute = async function* <Event, Result>(task: string, config: unknown, options: CallOptions) {
  const thread = openThread()
  try {
    return yield* thread.call<Event, Result>(task, config, options)
  } finally {
    await thread.close()
  }
}
