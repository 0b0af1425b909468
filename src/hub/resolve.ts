import { stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { LowrankError } from '../util/errors.ts'
import { parseHubName } from '../util/hub-name.ts'
import { status, type StatusEvent, type TaskContext } from '../util/task.ts'
import { adapterNeeds, modelNeeds, type Needs } from './files.ts'

/** Which model of the hub a folder is. */
export interface Origin {
  /** `org/name`. */
  readonly id: string
  /** The commit. */
  readonly revision: string
}

/** What of a configuration is from the hub. */
export interface Origins {
  readonly model?: Origin
  readonly adapter?: Origin
}

/** What names a model, and maybe an adapter: each by a folder, or as the hub calls it. */
interface Named {
  readonly model: string
  readonly adapter?: string | undefined
}

/**
 * A configuration with folders for what it names of the hub: those of the cache, into which is downloaded what it lacks. A folder of that
 * name comes first.
 *
 * @throws LowrankError `model`, `adapter`, `io`: it cannot be had, or used, and why; `cancelled`: what came so far stays.
 */
export async function* fromHub<C extends Named>(
  config: C,
  context: TaskContext,
): AsyncGenerator<StatusEvent, { readonly config: C; readonly origins: Origins }> {
  const model = yield* place(config.model, modelNeeds, context)
  const adapter = config.adapter === undefined ? undefined : yield* place(config.adapter, adapterNeeds, context)
  return {
    config: { ...config, model: model.folder, ...(adapter === undefined ? {} : { adapter: adapter.folder }) },
    origins: {
      ...(model.origin === undefined ? {} : { model: model.origin }),
      ...(adapter?.origin === undefined ? {} : { adapter: adapter.origin }),
    },
  }
}

/** How a model of the hub is named exactly. */
export function exactName({ id, revision }: Origin): string {
  return `${id}@${revision}`
}

async function* place(
  name: string,
  needs: Needs,
  { cancelled }: TaskContext,
): AsyncGenerator<StatusEvent, { readonly folder: string; readonly origin?: Origin }> {
  const parsed = parseHubName(name)
  if (parsed === undefined || (await stat(name).catch(() => undefined)) !== undefined) return { folder: name }
  // The client of the hub is loaded by who needs it.
  const { fetchRepo, Progress } = await import('./download.ts')
  const { id, revision = 'main' } = parsed
  const controller = new AbortController()
  const progress = new Progress()
  let ended = false
  const work = fetchRepo({ id, revision }, needs, { signal: controller.signal, progress }).finally(() => (ended = true))
  const settled = work.then(
    () => {},
    () => {},
  )
  try {
    const begun = performance.now()
    let next = begun + second
    while (!ended) {
      await Promise.race([settled, sleep(tick)])
      if (cancelled()) controller.abort()
      for (const message of progress.messages.splice(0)) yield status(message)
      const { text } = progress
      const now = performance.now()
      if (text === undefined || now < next) continue
      yield status(`downloading ${id}: ${text}`)
      // Each is a line where no terminal is: of a download of hours there are some hundreds.
      next = now + Math.max(second, (now - begun) / 20)
    }
    const { folder, commit } = await work
    return { folder, origin: { id, revision: commit } }
  } catch (error) {
    if (!controller.signal.aborted) throw error
    throw new LowrankError('cancelled', `the download of ${id} was cancelled; the next one continues from there`)
  } finally {
    // Also where nobody asks for the next event.
    controller.abort()
    await settled
  }
}

/** Milliseconds between two messages, and between two looks at whether the download is to end. */
const [second, tick] = [1000, 100]
