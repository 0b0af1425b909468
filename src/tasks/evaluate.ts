import type { QuantizationOptions, TrainConfig } from '../config/index.ts'
import { findData, fromHub } from '../hub/resolve.ts'
import { baseFor, dayFor } from '../runs/adapter-base.ts'
import type { ReadOptions } from '../session/read-tokens.ts'
import { openSession } from '../session/session.ts'
import { evaluationWorkload } from '../train/workload.ts'
import { evalBatches } from '../text/batches.ts'
import { evaluateBatches } from '../train/evaluate.ts'
import type { EvaluationResult } from '../train/events.ts'
import { LowrankError } from '../util/errors.ts'
import { reported, status, type StatusEvent, type TaskContext } from '../util/task.ts'

type Shared = 'model' | 'adapter' | 'threads' | 'memory' | 'perDeviceEvalBatchSize' | 'sharePrefixes'

export interface EvaluationConfig extends Pick<TrainConfig, Shared>, ReadOptions, QuantizationOptions {
  /** The file of examples. */
  readonly data: string
}

/**
 * Loss, perplexity and token accuracy of a model, with or without an adapter, on a dataset.
 *
 * @throws LowrankError `model` where the loss is not finite, though all weights are.
 */
export async function* runEvaluation(
  given: EvaluationConfig,
  { cancelled }: TaskContext,
): AsyncGenerator<StatusEvent, EvaluationResult> {
  const { config } = yield* fromHub(given, { cancelled })
  const { model, adapter, threads, perDeviceEvalBatchSize: batchSize, memory: bound } = config
  const quantization = yield* baseFor(config)
  const sources = yield* findData(config.data, { cancelled })
  await using session = await openSession({ model, adapter, threads, quantization, cancelled })
  const dated = { ...config, templateDate: await dayFor(config) }
  const template = await session.template(dated)
  if (template?.writesDate === true) yield status(`the chat template writes the date: ${template.day}`)
  const { examples, summary } = yield* reported((report) => session.read(sources, dated, report))
  session.tokenizer.close()
  const { regimeOf } = session.decoder
  const batches = evalBatches(examples, batchSize, { sharePrefixes: config.sharePrefixes === 'auto', regimeOf })
  const plan = session.plan(evaluationWorkload(batches, summary), { setting: 'recompute', bound })
  const { pipeline } = await session.load(plan)
  const result = await evaluateBatches({ pipeline, batches, cancelled })
  if (!Number.isFinite(result.loss)) throw overflowed([given.model, given.adapter], result.loss)
  return { ...result, data: summary }
}

function overflowed(folders: readonly (string | undefined)[], loss: number): LowrankError {
  const named = folders.filter((path) => path !== undefined).join(' with ')
  return new LowrankError(
    'model',
    `the loss is ${loss}: the weights of ${named} are finite, but what they compute is not`,
    {
      hint: 'Some of them are far too large.',
    },
  )
}
