import { join } from 'node:path'
import type { TrainConfig } from '../../config/index.ts'
import { messageOf } from '../../formats/json.ts'
import type { TrainEvent } from '../../train/events.ts'
import { writeReport } from '../report.ts'
import { EventFile } from './tensorboard.ts'

export interface RunReportsOptions {
  readonly config: Pick<TrainConfig, 'outputDir' | 'reportTo' | 'loggingDir'>
  /** When the run began, also where it goes on now; ISO 8601. */
  readonly startedAt: string
  /** The step of the checkpoint from which the run goes on, if it does. */
  readonly resumedFrom: number | undefined
}

/**
 * What is written of a run beside its record: TensorBoard's file while it goes, the report when it ends. A failure here is reported,
 * and stops nothing.
 */
export class RunReports {
  readonly #folder: string
  readonly #board: EventFile | undefined
  #hasSteps = false

  constructor({ config, startedAt, resumedFrom }: RunReportsOptions) {
    const { outputDir, reportTo, loggingDir } = config
    this.#folder = outputDir
    if (!reportTo.includes('tensorboard')) return
    // A folder a run, so that a later run into the same output folder is not taken for more of this one.
    const time = startedAt.slice(0, 19).replace('T', '_').replaceAll(':', '-')
    this.#board = new EventFile({
      folder: loggingDir ?? join(outputDir, 'runs', time),
      // Whoever knows the whole address may post to it.
      config: { ...config, webhookUrl: undefined },
      resumedAt: resumedFrom === undefined ? undefined : resumedFrom + 1,
    })
  }

  /** Passes on an event that the record of the run has already; returns what went wrong, in words. */
  async event(event: TrainEvent): Promise<string[]> {
    if (event.type === 'step') this.#hasSteps = true
    this.#board?.event(event)
    const problems = this.#board?.warnings() ?? []
    return event.type === 'done' ? [...problems, ...(await this.#writeReport())] : problems
  }

  /** Ends with a run that failed or was cancelled: it has a report if it has a step. */
  async ended(): Promise<void> {
    if (this.#hasSteps) await this.#writeReport()
  }

  close(): void {
    this.#board?.close()
  }

  async #writeReport(): Promise<string[]> {
    try {
      await writeReport(this.#folder)
      return []
    } catch (error) {
      return [`the report was not written: ${messageOf(error)}; lowrank report ${this.#folder} writes it again`]
    }
  }
}
