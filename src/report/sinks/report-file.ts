import type { TrainEvent } from '../../train/events.ts'
import { messageOf } from '../../util/errors.ts'
import { writeReport } from '../report.ts'
import type { ErrorEvent, Sink } from './sink.ts'

/** The report of a run, written when it ends; of a run that failed or was cancelled, if it has a step. */
export class ReportFile implements Sink {
  readonly #folder: string
  readonly #warnings: string[] = []
  #isDue = false
  #hasSteps = false

  constructor(folder: string) {
    this.#folder = folder
  }

  event({ type }: TrainEvent | ErrorEvent): void {
    this.#hasSteps ||= type === 'step'
    this.#isDue = type === 'done' || (type === 'error' && this.#hasSteps)
  }

  async flush(): Promise<void> {
    if (!this.#isDue) return
    this.#isDue = false
    try {
      await writeReport(this.#folder)
    } catch (error) {
      this.#warnings.push(
        `the report was not written: ${messageOf(error)}; lowrank report ${this.#folder} writes it again`,
      )
    }
  }

  warnings(): string[] {
    return this.#warnings.splice(0)
  }

  /** Nothing is open in between. */
  close(): void {}
}
