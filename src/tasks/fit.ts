import type { TrainConfig } from '../config/index.ts'
import { fromHub } from '../hub/resolve.ts'
import { readData, type TrainingData } from '../session/data.ts'
import { MemoryShortage } from '../session/plan.ts'
import { type Session, sessionOf } from '../session/session.ts'
import { totalSteps } from '../train/trainer.ts'
import { workloadOf } from '../train/workload.ts'
import { formatSize } from '../util/format.ts'
import { reported, type StatusEvent, type TaskContext } from '../util/task.ts'
import { findDataFiles } from './find-data.ts'

/**
 * Which of several runs on the same data do not fit into memory, in words, by their place; weights are not read.
 *
 * @throws LowrankError what is wrong with all of them: model, data, options.
 */
export async function* whatDoesNotFit(
  configs: readonly TrainConfig[],
  { cancelled }: TaskContext,
): AsyncGenerator<StatusEvent, Map<number, string>> {
  const problems = new Map<number, string>()
  const sessions: Session[] = []
  let data: TrainingData | undefined
  try {
    for (const [i, given] of configs.entries()) {
      const { config } = yield* fromHub(given, { cancelled })
      const session = await sessionOf(config, cancelled)
      sessions.push(session)
      if (data === undefined) {
        const files = yield* findDataFiles(config, { cancelled })
        data = yield* reported((report) => readData(session, files, config, report))
      }
      session.tokenizer.close()
      try {
        session.plan(workloadOf(config, data, session.decoder.regimeOf), {
          setting: config.activations,
          bound: config.memory,
        })
      } catch (error) {
        if (!(error instanceof MemoryShortage)) throw error
        problems.set(i, `does not fit: needs ${formatSize(error.needed)}`)
      }
    }
  } finally {
    // The data are kept by the first of them.
    for (const session of sessions) await session[Symbol.asyncDispose]()
  }
  return problems
}

/**
 * The steps that a run takes, which fits into memory.
 *
 * @throws LowrankError what is wrong with it: model, data, options, memory.
 */
export async function* stepsOf(given: TrainConfig, { cancelled }: TaskContext): AsyncGenerator<StatusEvent, number> {
  const { config } = yield* fromHub(given, { cancelled })
  const files = yield* findDataFiles(config, { cancelled })
  await using session = await sessionOf(config, cancelled)
  const data = yield* reported((report) => readData(session, files, config, report))
  session.tokenizer.close()
  session.plan(workloadOf(config, data, session.decoder.regimeOf), {
    setting: config.activations,
    bound: config.memory,
  })
  return totalSteps(config, data.train.examples)
}
