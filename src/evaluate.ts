import { quantizationOf, type EvalConfig } from './config.ts'
import { PreparedDecoder } from './decoder.ts'
import { notFiniteError } from './model/not-finite.ts'
import { checkVocabulary } from './open.ts'
import { evaluationWorkload, planMemory } from './plan.ts'
import { evalBatches } from './text/batches.ts'
import { readExamples } from './text/examples.ts'
import { loadTokenizer } from './text/tokenizer.ts'
import { evaluateBatches } from './train/evaluate.ts'
import type { EvaluationResult } from './train/events.ts'

/**
 * Loss, perplexity and token accuracy of a model, with or without an adapter, on a dataset.
 *
 * @throws LowrankError `model` or `adapter` where the loss is not finite: the weight that is to blame.
 */
export async function runEvaluation(config: EvalConfig, cancelled: () => boolean): Promise<EvaluationResult> {
  const { model, adapter, threads, maxLength, skipBadLines, perDeviceEvalBatchSize: batchSize, memory: bound } = config
  const tokenizer = await loadTokenizer(model, { cancelled })
  const prepared = await PreparedDecoder.open({ model, adapter, threads, quantization: quantizationOf(config) })
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
    if (!Number.isFinite(result.loss)) throw await notFiniteError(config, `loss is ${result.loss}`)
    return { ...result, data: summary }
  } finally {
    await (decoder ?? prepared).close()
  }
}
