import { stat } from 'node:fs/promises'
import { count, duration, formatSize, plural, progressText } from '../util/format.ts'
import type { DataSource } from './readers/index.ts'

/** Seconds after which the first message comes; those after it come ever more seldom. */
const patience = 5

interface ProgressOptions {
  readonly report?: ((message: string) => void) | undefined
  /** Seconds, from whenever. */
  readonly now?: () => number
}

/** Says now and then how far the reading of files is, in their bytes. */
export class ReadProgress {
  readonly #options: Required<Pick<ProgressOptions, 'now'>> & ProgressOptions
  readonly #begun: number
  #next: number
  #done = 0
  /** Undefined where a pipe is among them, whose end nobody knows. */
  #total: number | undefined = 0

  private constructor(options: ProgressOptions) {
    this.#options = { now: () => performance.now() / 1000, ...options }
    this.#begun = this.#options.now()
    this.#next = this.#begun + patience
  }

  static async of(sources: readonly DataSource[], options: ProgressOptions): Promise<ReadProgress> {
    const progress = new ReadProgress(options)
    for (const { path } of sources) {
      const found = await stat(path).catch(() => undefined)
      const size = found?.isFile() === true ? found.size : NaN
      progress.#total = Number.isNaN(size) || progress.#total === undefined ? undefined : progress.#total + size
    }
    return progress
  }

  /** Bytes that were read. */
  readonly add = (bytes: number): void => {
    this.#done += bytes
  }

  /** To be called when there is more; `path`: the file that is read. */
  look(path: string, made: { readonly examples: number; readonly tokens: number }): void {
    const { report, now } = this.#options
    const time = now()
    if (report === undefined || time < this.#next) return
    const seconds = time - this.#begun
    this.#next = time + Math.max(patience, seconds / 5)
    const [done, total] = [this.#done, this.#total]
    const where =
      total === undefined
        ? `${formatSize(done)} in ${duration(seconds)}`
        : progressText(Math.min(done, total), total, done > 0 ? seconds / done : undefined)
    report(`tokenizing ${path}: ${where} (${plural(made.examples, 'example')}, ${count(made.tokens)} tokens)`)
  }
}
