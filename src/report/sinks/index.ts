import { join } from 'node:path'
import type { TrainConfig } from '../../config/index.ts'
import { ReportFile } from './report-file.ts'
import type { Sink } from './sink.ts'
import { EventFile } from './tensorboard.ts'

interface SinkOptions {
  readonly config: Pick<TrainConfig, 'outputDir' | 'reportTo' | 'loggingDir'>
  /** When the run began, also where it goes on now; ISO 8601. */
  readonly startedAt: string
  /** The step of the checkpoint from which the run goes on, if it does. */
  readonly resumedFrom: number | undefined
}

/** The sinks that write files where the run computes: TensorBoard's, and the report. */
export function fileSinks({ config, startedAt, resumedFrom }: SinkOptions): Sink[] {
  const { outputDir, reportTo, loggingDir } = config
  const report = new ReportFile(outputDir)
  if (!reportTo.includes('tensorboard')) return [report]
  // A folder a run, so that a later run into the same output folder is not taken for more of this one.
  const time = startedAt.slice(0, 19).replace('T', '_').replaceAll(':', '-')
  const board = new EventFile({
    folder: loggingDir ?? join(outputDir, 'runs', time),
    // Whoever knows the whole address may post to it.
    config: { ...config, webhookUrl: undefined },
    resumedAt: resumedFrom === undefined ? undefined : resumedFrom + 1,
  })
  return [board, report]
}
