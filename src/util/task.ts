import { setTimeout as sleep } from 'node:timers/promises'

/** What a task can ask while it computes. */
export interface TaskContext {
  /**
   * Whether it is asked to end early. A function and no `AbortSignal`: the thread that computes is in native code for seconds, and asks
   * between two calls of it, when no event has been delivered.
   */
  readonly cancelled: () => boolean
}

/**
 * A program of `tasks/`: it yields what there is to report, and returns what came of it. Whoever does not take its events makes it wait.
 *
 * @throws LowrankError `cancelled` where it was asked to end, and has not done all.
 */
export type Task<Config, Event, Result> = (config: Config, context: TaskContext) => AsyncGenerator<Event, Result>

/** What a task is about to do, in words. */
export interface StatusEvent {
  readonly type: 'status'
  readonly message: string
}

export function status(message: string): StatusEvent {
  return { type: 'status', message }
}

/** Milliseconds between two looks at whether there is something to report. */
const tick = 100

/** Waits for work and passes on what there is to report meanwhile. `stop`: what ends the work where nobody asks for the next event. */
export async function* whileWaiting<T>(
  work: Promise<T>,
  { look, stop }: { readonly look: () => readonly string[]; readonly stop?: () => void },
): AsyncGenerator<StatusEvent, T> {
  let ended = false
  const settle = (): void => void (ended = true)
  const settled = work.then(settle, settle)
  try {
    while (!ended) {
      await Promise.race([settled, sleep(tick)])
      for (const message of look()) yield status(message)
    }
    return await work
  } finally {
    stop?.()
    await settled
  }
}

/** Waits for work that reports in words what it does, and passes that on. */
export async function* reported<T>(
  begin: (report: (message: string) => void) => Promise<T>,
): AsyncGenerator<StatusEvent, T> {
  const messages: string[] = []
  const work = begin((message) => messages.push(message))
  return yield* whileWaiting(work, { look: () => messages.splice(0) })
}

/** Runs a task to its end and returns its result; `onEvent` receives its events. */
export async function resultOf<Event, Result>(
  run: AsyncGenerator<Event, Result>,
  onEvent?: (event: Event) => void,
): Promise<Result> {
  for (;;) {
    const { done, value } = await run.next()
    if (done === true) return value
    onEvent?.(value)
  }
}
