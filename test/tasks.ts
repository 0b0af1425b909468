import {
  evalOptions,
  mergeOptions,
  planOptions,
  quantizeOptions,
  replayOptions,
  selftestOptions,
} from '../src/commands/options.fixture.ts'
import type { Compute } from '../src/commands/compute.ts'
import { commands } from '../src/commands/table.ts'
import { parseTrainConfig } from '../src/config/index.ts'
import type * as api from '../src/index.ts'
import { runEvaluation } from '../src/tasks/evaluate.ts'
import { runFinetune } from '../src/tasks/finetune.ts'
import { runMerge } from '../src/tasks/merge.ts'
import { runPlan } from '../src/tasks/plan.ts'
import { runQuantize } from '../src/tasks/quantize.ts'
import { runReplay } from '../src/tasks/replay.ts'
import { runSelftest } from '../src/tasks/selftest/selftest.ts'
import { resultOf, type StatusEvent, type TaskContext } from '../src/util/task.ts'

/** Functions of the public API that compute. */
export type Tasks = Pick<typeof api, 'finetune' | 'evaluate' | 'plan' | 'quantize' | 'merge' | 'replay' | 'selftest'>

const context = (signal?: AbortSignal): TaskContext => ({ cancelled: () => signal?.aborted === true })
const telling =
  (onStatus?: (message: string) => void) =>
  ({ message }: StatusEvent): void =>
    onStatus?.(message)

/**
 * What the worker threads of the API run, in this thread: on a tiny model in a third of the time, since no thread has to start. For tests
 * of what a task does; that calls, events and errors cross the thread is tested through the API itself.
 */
export const directTasks: Tasks = {
  finetune: (config, { signal } = {}) => runFinetune(parseTrainConfig(config), context(signal)),
  evaluate: (config, { signal, onStatus } = {}) =>
    resultOf(runEvaluation(evalOptions.parse(config), context(signal)), telling(onStatus)),
  plan: (config, { signal, onStatus } = {}) =>
    resultOf(runPlan(planOptions.parse(config), context(signal)), telling(onStatus)),
  quantize: (config, { signal, onStatus } = {}) =>
    resultOf(runQuantize(quantizeOptions.parse(config), context(signal)), telling(onStatus)),
  merge: (config, { signal, onStatus } = {}) =>
    resultOf(runMerge(mergeOptions.parse(config), context(signal)), telling(onStatus)),
  replay: (run, options, { signal, onStatus } = {}) =>
    resultOf(runReplay({ ...replayOptions.parse(options), run }, context(signal)), telling(onStatus)),
  selftest: (config, { signal, onStatus } = {}) =>
    resultOf(runSelftest(selftestOptions.parse(config), context(signal)), telling(onStatus)),
}

/** Runs a task of a command in this thread. */
export const computeHere: Compute = async function* <Event, Result>(
  task: string,
  config: unknown,
  { signal }: api.CallOptions,
) {
  const run = await commands.find(({ name }) => name === task)?.load?.()
  if (run === undefined) throw new Error(`no task ${task}`)
  return (yield* run(config, context(signal)) as AsyncGenerator<Event, Result>) as Result
}
