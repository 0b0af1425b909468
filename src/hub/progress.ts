import { progressText } from '../util/format.ts'

/** What there is to report while a repository is fetched: messages, each once, and how far it is. */
export class Progress {
  readonly messages: string[] = []
  #done = 0
  #total = 0
  #came = 0
  #since = 0

  start(total: number): void {
    ;[this.#done, this.#total, this.#came, this.#since] = [0, total, 0, performance.now()]
  }

  /** Bytes that were there already (`came` is false) are no measure of time. */
  readonly add = (bytes: number, came: boolean): void => {
    this.#done += bytes
    if (came) this.#came += bytes
  }

  /** `120 MB of 538 MB, 12 s left`; undefined where nothing is under way. */
  get text(): string | undefined {
    if (this.#done >= this.#total) return undefined
    const seconds = (performance.now() - this.#since) / 1000
    return progressText(this.#done, this.#total, this.#came > 0 ? seconds / this.#came : undefined)
  }
}
