import { quantizationOf, type EvalConfig } from './config.ts'
import { openModel } from './open.ts'
import { evalBatches } from './text/batches.ts'
import { readExamples } from './text/examples.ts'
import { evaluateBatches } from './train/evaluate.ts'
import type { EvalResult } from './train/events.ts'

/** Loss, perplexity and token accuracy of a model, with or without an adapter, on a dataset. */
export async function runEvaluation(config: EvalConfig, cancelled: () => boolean): Promise<EvalResult> {
  const model = await openModel({ ...config, quantization: quantizationOf(config) })
  try {
    const { examples } = await readExamples({
      path: config.data,
      tokenizer: model.tokenizer,
      vocabSize: model.config.vocabSize,
      maxLength: config.maxLength,
      skipBadLines: config.skipBadLines,
    })
    const batches = evalBatches(examples, config.perDeviceEvalBatchSize)
    return await evaluateBatches({ pipeline: model.pipeline, batches, cancelled })
  } finally {
    await model.close()
  }
}
