import { stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { LowrankError } from '../util/errors.ts'
import { parseHubName } from '../util/hub-name.ts'
import { status, type StatusEvent, type TaskContext } from '../util/task.ts'
import { type DataSource, findSources } from '../text/readers/index.ts'
import { adapterNeeds, modelNeeds, type Needs } from './files.ts'
import { Progress } from './progress.ts'

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
  const { id, revision = 'main' } = parsed
  const { folder, commit } = yield* follow(
    async (signal, progress) =>
      (await import('./download.ts')).fetchRepo({ id, revision }, needs, { signal, progress }),
    { what: id, cancelled },
  )
  return { folder, origin: { id, revision: commit } }
}

/**
 * The files that a configuration names as data, those of the hub downloaded into the cache.
 *
 * @throws LowrankError `data`, `io`: what is named is not there, or cannot be had; `cancelled`: what came so far stays.
 */
export async function* findData(
  spec: string | readonly string[],
  { cancelled }: TaskContext,
): AsyncGenerator<StatusEvent, DataSource[]> {
  return yield* follow(
    (signal, progress) =>
      findSources(spec, {
        hub: async (name) => (await import('./datasets.ts')).fetchDataset(name, { signal, progress }),
        onNote: (message) => progress.messages.push(message),
      }),
    { what: 'the data', cancelled },
  )
}

/** Does what may take long, and reports meanwhile how far it is. */
async function* follow<T>(
  begin: (signal: AbortSignal, progress: Progress) => Promise<T>,
  { what, cancelled }: TaskContext & { readonly what: string },
): AsyncGenerator<StatusEvent, T> {
  const controller = new AbortController()
  const progress = new Progress()
  let ended = false
  const work = begin(controller.signal, progress).finally(() => (ended = true))
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
      yield status(`downloading ${what}: ${text}`)
      // Each is a line where no terminal is: of a download of hours there are some hundreds.
      next = now + Math.max(second, (now - begun) / 20)
    }
    return await work
  } catch (error) {
    if (!controller.signal.aborted) throw error
    throw new LowrankError('cancelled', `the download of ${what} was cancelled; the next one continues from there`)
  } finally {
    // Also where nobody asks for the next event.
    controller.abort()
    await settled
  }
}

/** Milliseconds between two messages, and between two looks at whether the download is to end. */
const [second, tick] = [1000, 100]
