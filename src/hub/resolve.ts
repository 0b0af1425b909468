import { stat } from 'node:fs/promises'
import type { TensorReader } from '../formats/safetensors.ts'
import { LowrankError } from '../util/errors.ts'
import { parseHubName } from '../util/hub-name.ts'
import { type StatusEvent, type TaskContext, whileWaiting } from '../util/task.ts'
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

/** The same for one adapter of several: its folder, and which one of the hub it is. */
export function adapterFromHub(name: string, context: TaskContext): AsyncGenerator<StatusEvent, Placed> {
  return place(name, adapterNeeds, context)
}

/**
 * A model of which nothing but small files is wanted: its folder, and where the cache has no weights of it, their tensors, described by the
 * headers of the files on the hub, which are all that is read of those.
 *
 * @throws LowrankError as `fromHub`.
 */
export async function* headersFromHub(
  name: string,
  { cancelled }: TaskContext,
): AsyncGenerator<StatusEvent, { readonly folder: string; readonly checkpoint?: () => Promise<TensorReader> }> {
  const parsed = parseHubName(name)
  if (parsed === undefined || (await stat(name).catch(() => undefined)) !== undefined) return { folder: name }
  const { id, revision = 'main' } = parsed
  return yield* follow(
    async (signal, progress) => {
      const [{ fetchSmall }, { readHeaders }] = await Promise.all([import('./download.ts'), import('./headers.ts')])
      const { folder, commit, remote } = await fetchSmall({ id, revision }, modelNeeds, { signal, progress })
      if (remote === undefined) return { folder }
      // What reads the headers outlives the signal of what follows this.
      const headers = await readHeaders(remote.files, commit, remote.asked)
      return { folder, checkpoint: async () => headers }
    },
    { what: id, cancelled },
  )
}

interface Placed {
  readonly folder: string
  readonly origin?: Origin
}

/** How a model of the hub is named exactly. */
export function exactName({ id, revision }: Origin): string {
  return `${id}@${revision}`
}

async function* place(name: string, needs: Needs, { cancelled }: TaskContext): AsyncGenerator<StatusEvent, Placed> {
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
  const begun = performance.now()
  let next = begun + second
  // An abort at the end of it all is none that was asked for.
  let ended = false
  const look = (): string[] => {
    if (cancelled()) {
      ended = true
      controller.abort()
    }
    const messages = progress.messages.splice(0)
    const { text } = progress
    const now = performance.now()
    if (text === undefined || now < next) return messages
    // Each is a line where no terminal is: of a download of hours there are some hundreds.
    next = now + Math.max(second, (now - begun) / 20)
    return [...messages, `downloading ${what}: ${text}`]
  }
  try {
    return yield* whileWaiting(begin(controller.signal, progress), { look, stop: () => controller.abort() })
  } catch (error) {
    if (!ended) throw error
    throw new LowrankError('cancelled', `the download of ${what} was cancelled; the next one continues from there`)
  }
}

/** Milliseconds between two messages. */
const second = 1000
