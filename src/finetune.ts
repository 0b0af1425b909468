import { join } from 'node:path'
import { readDecoderConfig } from './model/config.ts'
import { unusedOptions, type TrainConfig } from './config.ts'
import { peakMemory } from './engine/machine.ts'
import { generateGreedy } from './generate/greedy.ts'
import { checkVocabulary, loadDecoder, prepareRun, type OpenModel } from './open.ts'
import { planEvent, planMemory, watchBound, workloadOf, type MemoryPlan } from './plan.ts'
import { findStart } from './resume.ts'
import { RunReports } from './report/run-reports.ts'
import { readExamples, type Dataset, type Example } from './text/examples.ts'
import { loadTokenizer } from './text/tokenizer.ts'
import { pruneCheckpoints, restoreTraining, saveCheckpoint, type Checkpoint } from './train/checkpoint.ts'
import type { TrainEvent } from './train/events.ts'
import { RunFiles } from './train/run-files.ts'
import { describeInputs, modelSize, type RunInputs } from './train/run-inputs.ts'
import { saveResult, type SaveOptions } from './train/save.ts'
import type { Trial } from './train/step.ts'
import { startTraining, totalSteps, train, type Training } from './train/trainer.ts'
import { LowrankError } from './util/errors.ts'
import { formatSize } from './util/size.ts'

/** Bytes of a model that take seconds to read and hash, so that it should be said what the run waits for. */
const noticed = 4e9

/**
 * A training run, top to bottom: data, model, plan, training, files. Computes in the thread that calls it; `finetune` of the
 * public API calls it in a worker.
 */
export async function* runFinetune(config: TrainConfig, cancelled: () => boolean): AsyncGenerator<TrainEvent, void> {
  const begun = performance.now()
  // Told before there is a folder to write them to, which is made only once nothing is refused any more.
  const early: TrainEvent[] = []
  const tell = (event: TrainEvent): TrainEvent => {
    early.push(event)
    return event
  }
  for (const message of unusedOptions(config)) yield tell({ type: 'warning', message })
  yield tell({ type: 'status', message: `reading ${config.train}` })
  const decoder = await readDecoderConfig(config.model)
  const tokenizer = await loadTokenizer(config.model, { cancelled })
  const read = (path: string): Promise<Dataset> =>
    readExamples({ path, tokenizer, ...pick(config), vocabSize: decoder.vocabSize, cancelled })
  const data = {
    train: await read(config.train),
    valid: config.valid === undefined ? undefined : await read(config.valid),
  }
  // Its memory is free until there are samples to be made.
  tokenizer.close()
  yield tell({ type: 'data', train: data.train.summary, valid: data.valid?.summary })

  const longest = data.train.examples.reduce((most, { ids }) => Math.max(most, ids.length), 0)
  if (longest > decoder.maxPositionEmbeddings) {
    const message = `the longest example has ${longest} tokens, the model was made for ${decoder.maxPositionEmbeddings} (max_position_embeddings); set maxLength`
    yield tell({ type: 'warning', message })
  }
  checkVocabulary(tokenizer, decoder, config.model)
  const prepared = await prepareRun(config)
  const workload = workloadOf(config, data)
  let plan: MemoryPlan
  let inputs: RunInputs
  let from: Checkpoint | undefined
  try {
    const size = await modelSize(config.model)
    if (size > noticed)
      yield tell({ type: 'status', message: `computing the SHA-256 of ${formatSize(size)} of weights` })
    inputs = await describeInputs(config, prepared.threads)
    const start = await findStart(config, inputs)
    from = start.from
    for (const event of start.told) yield tell(event)
    // The same choice, since it decides in which order is summed.
    const choice = config.resumeAnyway ? undefined : from?.record.memory
    plan = planMemory(prepared, workload, { setting: config.activations, bound: config.memory, choice })
  } catch (error) {
    await prepared.close()
    throw error
  }
  yield tell(planEvent(prepared, plan, totalSteps(config, data.train.examples)))
  yield tell({ type: 'status', message: `loading ${config.model}` })
  const model = { ...(await loadDecoder(prepared, plan)), tokenizer }
  const { largest } = workload
  const trial = largest && { largest, smaller: plan.smaller }
  try {
    const training = startTraining({ ...model, config, base: prepared.quantization, examples: data.train.examples })
    if (from !== undefined) await restoreTraining(from, training, model.adaptation.peftName)
    const reads = [config.model, config.train, config.adapter, config.valid].filter((path) => path !== undefined)
    const files = await RunFiles.open({ folder: config.outputDir, inputs, data: data.train.summary, from, reads })
    for (const message of files.removed) yield tell({ type: 'warning', message })
    for (const event of files.samples) yield event
    const usage = (): { seconds: number; peakMemory: number } => ({
      seconds: (from?.record.seconds ?? 0) + (performance.now() - begun) / 1000,
      peakMemory: peakMemory(),
    })
    const resumedFrom = from?.record.state.step
    const reports = new RunReports({ config, startedAt: files.startedAt, resumedFrom })
    try {
      for (const event of early) await files.log(event)
      const run: Run = { config, data, model, training, from, files, inputs, plan, trial, usage, cancelled }
      for await (const event of watchBound(plan, trainAndSave(run))) {
        await files.log(event)
        for (const message of await reports.event(event)) yield { type: 'warning', message }
        yield event
      }
    } catch (error) {
      const status = error instanceof LowrankError && error.code === 'cancelled' ? 'cancelled' : 'failed'
      await files.update({ status, ...usage(), result: String(error) })
      await reports.ended()
      throw error
    } finally {
      reports.close()
      await files.close()
    }
  } finally {
    await model.close()
  }
}

/** A run whose model is loaded. */
interface Run {
  readonly config: TrainConfig
  readonly data: { readonly train: Dataset; readonly valid: Dataset | undefined }
  readonly model: OpenModel
  readonly training: Training
  readonly from: Checkpoint | undefined
  readonly files: RunFiles
  readonly inputs: RunInputs
  readonly plan: MemoryPlan
  readonly trial: Trial | undefined
  readonly usage: () => { readonly seconds: number; readonly peakMemory: number }
  readonly cancelled: () => boolean
}

async function* trainAndSave(run: Run): AsyncGenerator<TrainEvent, void> {
  const { config, data, model, training, files, inputs, trial, usage, cancelled } = run
  const { outputDir } = config
  const valid = data.valid?.examples
  const samples = (valid ?? []).slice(0, config.samples)
  if (run.from === undefined) yield* complete(model, samples, 'before', cancelled)

  const { activations, expandWeights, headRows, streamed } = run.plan
  const memory = { activations, expandWeights, headRows, streamed }
  const save = async ({ keepOthers = false } = {}): Promise<string> => {
    const folder = join(outputDir, `checkpoint-${training.state.step}`)
    const about = { startedAt: files.startedAt, ...usage(), metricsBytes: await files.sync(), inputs, memory }
    await saveCheckpoint({ training, result: resultOf(run, folder), about })
    if (!keepOthers && config.saveTotalLimit !== undefined) await pruneCheckpoints(outputDir, config.saveTotalLimit)
    return folder
  }
  const result = yield* train(training, { valid, trial, saveCheckpoint: save, cancelled })
  await saveResult(resultOf(run, outputDir))
  yield { type: 'save', step: result.steps, path: outputDir }
  yield* complete(model, samples, 'after', cancelled)
  const used = usage()
  await files.update({ status: 'done', ...used, result })
  yield { type: 'done', ...result, outputDir, ...used }
}

/** How the weights of a run are written to a folder. */
function resultOf({ config, data, model, training }: Run, folder: string): SaveOptions {
  return {
    folder,
    trainables: model.trainables,
    tokenizerFiles: model.tokenizer.files,
    baseModel: config.model,
    lora: model.lora,
    peftName: model.adaptation.peftName,
    storage: model.storage,
    saveDtype: config.saveDtype,
    maxShardSize: config.maxShardSize,
    facts: [
      ['Training examples', data.train.summary.examples],
      ['Steps', training.steps],
      ['Examples per step', config.perDeviceTrainBatchSize * config.gradientAccumulationSteps],
      ['Learning rate', config.learningRate],
      ['Seed', config.seed],
    ],
  }
}

/** Completes the prompts of some examples, to be read beside what was expected. */
async function* complete(
  { pipeline, tokenizer }: OpenModel,
  examples: readonly Example[],
  when: 'before' | 'after',
  cancelled: () => boolean,
): AsyncGenerator<TrainEvent> {
  for (const { ids, labelMask } of examples) {
    if (cancelled()) return
    const start = labelMask.indexOf(1)
    const [prompt, expected] = [ids.subarray(0, start), ids.subarray(start)]
    // A little more than was expected, so that a model that does not stop is seen not to.
    const maxNewTokens = expected.length + 8
    const completion = await generateGreedy({ pipeline, tokenizer, ids: prompt, maxNewTokens, cancelled })
    if (cancelled()) return
    const [promptText = '', expectedText = ''] = await tokenizer.decode([prompt, expected])
    yield { type: 'sample', when, prompt: promptText, completion, expected: expectedText }
  }
  tokenizer.close()
}

function pick({ maxLength, skipBadLines }: TrainConfig): Pick<TrainConfig, 'maxLength' | 'skipBadLines'> {
  return { maxLength, skipBadLines }
}
