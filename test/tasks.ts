import {
  parseEvalConfig,
  parseOptions,
  parseQuantizeConfig,
  parseSelftestConfig,
  parseTrainConfig,
  replaySchema,
} from '../src/config/index.ts'
import { runEvaluation } from '../src/tasks/evaluate.ts'
import { runFinetune } from '../src/tasks/finetune.ts'
import { runQuantize } from '../src/tasks/quantize.ts'
import { runReplay } from '../src/tasks/replay.ts'
import { runSelftest } from '../src/tasks/selftest/selftest.ts'
import type * as api from '../src/thread/client.ts'

/** The tasks of the public API. */
export type Tasks = Pick<typeof api, 'finetune' | 'evaluate' | 'quantize' | 'replay' | 'selftest'>

const never = (): boolean => false

/**
 * What the worker threads of the API run, in this thread: on a tiny model in a third of the time, since no thread has to start. For tests
 * of what a task does; that calls, events and errors cross the thread is tested through the API itself.
 */
export const directTasks: Tasks = {
  finetune: (config) => runFinetune(parseTrainConfig(config), never),
  evaluate: (config, options?: api.StatusOptions) =>
    runEvaluation(parseEvalConfig(config), never, (text) => options?.onStatus?.(text)),
  quantize: (config) => runQuantize(parseQuantizeConfig(config), never),
  replay: (run, step, options?: api.StatusOptions) =>
    runReplay({ ...parseOptions(replaySchema, step), run }, never, (text) => options?.onStatus?.(text)),
  selftest: (config, options?: api.StatusOptions) =>
    runSelftest(parseSelftestConfig(config), never, (text) => options?.onStatus?.(text)),
}
