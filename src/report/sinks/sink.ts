import type { TrainEvent } from '../../train/events.ts'
import { LowrankError, messageOf } from '../../util/errors.ts'

/** What the sinks of a run receive when it ended early. */
export interface ErrorEvent {
  readonly type: 'error'
  readonly code: string
  readonly message: string
}

/**
 * What receives the events of a run beside its record. Nothing that goes wrong here is thrown: `warnings` reports it, and the run goes on.
 */
export interface Sink {
  /** Takes an event at once. The last one is `done` or `error`. */
  event(event: TrainEvent | ErrorEvent): void
  /** Waits until all is passed on, or until patience ends. */
  flush(): Promise<void>
  /** What went wrong since the last call. */
  warnings(): string[]
  /** Gives up what is not passed on yet. May be called again. */
  close(): void
}

/** Passes on the events of a run, after its sinks have received them. */
export async function* withSinks(
  sinks: readonly Sink[],
  events: AsyncGenerator<TrainEvent, void>,
): AsyncGenerator<TrainEvent, void> {
  const all = async (event: TrainEvent | ErrorEvent): Promise<void> => {
    for (const sink of sinks) sink.event(event)
    if (event.type === 'done' || event.type === 'error') await Promise.all(sinks.map((sink) => sink.flush()))
  }
  try {
    for await (const event of events) {
      await all(event)
      // Nothing may follow `done`, so that what there is to say of the last events comes before it.
      for (const message of sinks.flatMap((sink) => sink.warnings())) yield { type: 'warning', message }
      yield event
    }
  } catch (error) {
    await all(errorEvent(error))
    throw error
  } finally {
    for (const sink of sinks) sink.close()
  }
}

/** An error as sinks receive it. */
export function errorEvent(error: unknown): ErrorEvent {
  return { type: 'error', code: error instanceof LowrankError ? error.code : 'internal', message: messageOf(error) }
}
