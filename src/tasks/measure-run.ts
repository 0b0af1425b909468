import { quantizationOf, type TrainConfig } from '../config/index.ts'
import { peakMemory } from '../engine/machine.ts'
import { openGenerator } from '../generate/open.ts'
import { fromHub } from '../hub/resolve.ts'
import type { MeasureResult } from '../jobs/job.ts'
import { dayFor } from '../runs/adapter-base.ts'
import { readData } from '../session/data.ts'
import { openSession } from '../session/session.ts'
import { evalBatches, exampleLosses } from '../text/batches.ts'
import { evaluateBatches } from '../train/evaluate.ts'
import { layoutOf } from '../train/trainer.ts'
import { evaluationWorkload } from '../train/workload.ts'
import { internalError } from '../util/errors.ts'
import { reported, type StatusEvent, type TaskContext } from '../util/task.ts'
import { findDataFiles } from './find-data.ts'

/** What is answered while memory is measured: the same for all. */
const prompt = 'What takes less memory: a model, or a model with an adapter?'
const answerTokens = 16

/**
 * Measures what a training run has left in its output folder, as one who uses it has it: the memory it takes to answer a prompt, and its
 * loss on each validation example. For a process of its own, since memory is that of the process.
 */
export async function* runMeasure(
  given: TrainConfig,
  { cancelled }: TaskContext,
): AsyncGenerator<StatusEvent, MeasureResult> {
  const { config } = yield* fromHub(given, { cancelled })
  const { outputDir, threads, perDeviceEvalBatchSize, memory: bound } = config
  const used =
    config.method === 'full'
      ? { model: outputDir, adapter: undefined, quantization: undefined }
      : { model: config.model, adapter: outputDir, quantization: quantizationOf(config) }
  const servedMemory = await serve({ ...used, threads, cancelled })
  const files = yield* findDataFiles(config, { cancelled })
  await using session = await openSession({ ...used, threads, cancelled })
  const dated = { ...config, templateDate: await dayFor({ ...used, templateDate: config.templateDate }) }
  const { valid } = yield* reported((report) => readData(session, files, dated, report))
  if (valid === undefined) throw internalError('a comparison without validation data')
  session.tokenizer.close()
  const layout = layoutOf(config, session.decoder.regimeOf)
  const batches = evalBatches(valid.examples, perDeviceEvalBatchSize, layout)
  const plan = session.plan(evaluationWorkload(batches, valid.summary), { setting: 'recompute', bound })
  const { pipeline } = await session.load(plan)
  const losses: [number, number][] = []
  const onLosses = (found: Float32Array, index: number): void => {
    const [batch] = batches.slice(index, index + 1)
    for (const { lossSum, labelTokens } of exampleLosses(batch!, found)) losses.push([lossSum, labelTokens])
  }
  await evaluateBatches({ pipeline, batches, onLosses, cancelled })
  return { servedMemory, exampleLosses: losses }
}

/** The memory that the process has taken at most once a prompt is answered, bytes. */
async function serve(used: Parameters<typeof openGenerator>[0]): Promise<number> {
  await using generator = await openGenerator(used)
  const adapter = used.adapter === undefined ? undefined : await generator.generation.adapter(used.adapter)
  const asked = { maxNewTokens: answerTokens, doSample: false, adapter, seed: 0 }
  for await (const _ of generator.generate([prompt], asked, used.cancelled)) if (used.cancelled?.() === true) break
  return peakMemory()
}
