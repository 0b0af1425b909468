import { evalOptions, quantizeOptions, replayOptions } from '../src/commands/options.fixture.ts'
import { parseTrainConfig } from '../src/config/index.ts'
import type * as api from '../src/index.ts'
import { runEvaluation } from '../src/tasks/evaluate.ts'
import { runFinetune } from '../src/tasks/finetune.ts'
import { runQuantize } from '../src/tasks/quantize.ts'
import { runReplay } from '../src/tasks/replay.ts'
import { resultOf, type TaskContext } from '../src/util/task.ts'

/** Functions of the public API that compute. */
export type Tasks = Pick<typeof api, 'finetune' | 'evaluate' | 'quantize' | 'replay'>

const context = (signal?: AbortSignal): TaskContext => ({ cancelled: () => signal?.aborted === true })

/**
 * What the worker threads of the API run, in this thread: on a tiny model in a third of the time, since no thread has to start. For tests
 * of what a task does; that calls, events and errors cross the thread is tested through the API itself.
 */
export const directTasks: Tasks = {
  finetune: (config, { signal } = {}) => runFinetune(parseTrainConfig(config), context(signal)),
  evaluate: (config, { signal, onStatus } = {}) =>
    resultOf(runEvaluation(evalOptions.parse(config), context(signal)), ({ message }) => onStatus?.(message)),
  quantize: (config, { signal, onStatus } = {}) =>
    resultOf(runQuantize(quantizeOptions.parse(config), context(signal)), ({ message }) => onStatus?.(message)),
  replay: (run, options, { signal, onStatus } = {}) =>
    resultOf(runReplay({ ...replayOptions.parse(options), run }, context(signal)), ({ message }) =>
      onStatus?.(message),
    ),
}
