import type { QuantizationOptions, TrainConfig } from '../config/index.ts'
import { PreparedDecoder } from '../session/decoder.ts'
import { baseFor } from '../runs/adapter-base.ts'
import { checkVocabulary } from '../session/open.ts'
import { evaluationWorkload } from '../train/workload.ts'
import { planMemory } from '../session/plan.ts'
import { evalBatches } from '../text/batches.ts'
import { readExamples } from '../text/examples.ts'
import { loadTokenizer } from '../text/tokenizer.ts'
import { evaluateBatches } from '../train/evaluate.ts'
import type { EvaluationResult } from '../train/events.ts'
import { LowrankError } from '../util/errors.ts'
import type { StatusEvent, TaskContext } from '../util/task.ts'

type Shared = 'model' | 'adapter' | 'threads' | 'memory' | 'maxLength' | 'skipBadLines' | 'perDeviceEvalBatchSize'

export interface EvaluationConfig extends Pick<TrainConfig, Shared>, QuantizationOptions {
  /** The file of examples. */
  readonly data: string
}

/**
 * Loss, perplexity and token accuracy of a model, with or without an adapter, on a dataset.
 *
 * @throws LowrankError `model` where the loss is not finite, though all weights are.
 */
export async function* runEvaluation(
  config: EvaluationConfig,
  { cancelled }: TaskContext,
): AsyncGenerator<StatusEvent, EvaluationResult> {
  const { model, adapter, threads, maxLength, skipBadLines, perDeviceEvalBatchSize: batchSize, memory: bound } = config
  const tokenizer = await loadTokenizer(model, { cancelled })
  const quantization = yield* baseFor(config)
  const prepared = await PreparedDecoder.open({ model, adapter, threads, quantization })
  let decoder
  try {
    const { vocabSize } = prepared.config
    checkVocabulary(tokenizer, prepared.config, model)
    const read = { path: config.data, tokenizer, vocabSize, maxLength, skipBadLines, cancelled }
    const { examples, summary } = await readExamples(read)
    tokenizer.close()
    const batches = evalBatches(examples, batchSize)
    const plan = planMemory(prepared, evaluationWorkload(batches, summary), { setting: 'recompute', bound })
    decoder = await prepared.load(plan)
    const result = await evaluateBatches({ pipeline: decoder.pipeline, batches, cancelled })
    if (!Number.isFinite(result.loss)) throw overflowed([model, adapter], result.loss)
    return { ...result, data: summary }
  } finally {
    await (decoder ?? prepared).close()
  }
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
