import { rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { readDecoderConfig } from './model/config.ts'
import { quantizationOf, unusedOptions, type TrainConfig } from './config.ts'
import { generateGreedy } from './generate/greedy.ts'
import { PreparedDecoder } from './decoder.ts'
import { checkVocabulary, loadDecoder, type OpenModel } from './open.ts'
import { planEvent, planMemory, workloadOf, type MemoryPlan } from './plan.ts'
import { readExamples, type DatasetSummary, type Example } from './text/examples.ts'
import { loadTokenizer } from './text/tokenizer.ts'
import type { TrainEvent } from './train/events.ts'
import { hashFiles, modelFiles, RunFiles } from './train/run-files.ts'
import { saveCheckpoint, saveResult, type SaveOptions } from './train/save.ts'
import type { Trial } from './train/step.ts'
import { startTraining, totalSteps, train } from './train/trainer.ts'
import { LowrankError } from './util/errors.ts'

interface Dataset {
  readonly examples: readonly Example[]
  readonly summary: DatasetSummary
}

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
  const tokenizer = await loadTokenizer(config.model)
  const read = (path: string): Promise<Dataset> =>
    readExamples({ path, tokenizer, ...pick(config), vocabSize: decoder.vocabSize })
  const data = {
    train: await read(config.train),
    valid: config.valid === undefined ? undefined : await read(config.valid),
  }
  yield tell({ type: 'data', train: data.train.summary, valid: data.valid?.summary })

  const longest = data.train.examples.reduce((most, { ids }) => Math.max(most, ids.length), 0)
  if (longest > decoder.maxPositionEmbeddings) {
    const message = `the longest example has ${longest} tokens, the model was made for ${decoder.maxPositionEmbeddings} (max_position_embeddings); set maxLength`
    yield tell({ type: 'warning', message })
  }
  checkVocabulary(tokenizer, decoder, config.model)
  const lora = config.method === 'full' ? undefined : config
  const { model: folder, adapter, threads, init, seed } = config
  const prepared = await PreparedDecoder.open({
    model: folder,
    adapter,
    threads,
    quantization: quantizationOf(config),
    training: { lora, init, seed, labelSmoothing: config.labelSmoothingFactor },
  })
  const workload = workloadOf(config, { train: data.train.examples, valid: data.valid?.examples })
  let plan: MemoryPlan
  try {
    plan = planMemory(prepared, workload, { setting: config.activations, bound: config.memory })
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
    const files = await startRun(config, data)
    try {
      for (const event of early) await files.log(event)
      for await (const event of trainAndSave(config, model, data, { begun, cancelled, files, trial })) {
        await files.log(event)
        yield event
      }
    } catch (error) {
      const status = error instanceof LowrankError && error.code === 'cancelled' ? 'cancelled' : 'failed'
      await files.update({ status, ...usage(begun), result: String(error) })
      throw error
    } finally {
      await files.close()
    }
  } finally {
    await model.close()
  }
}

async function* trainAndSave(
  config: TrainConfig,
  model: OpenModel,
  data: { readonly train: Dataset; readonly valid: Dataset | undefined },
  run: {
    readonly begun: number
    readonly cancelled: () => boolean
    readonly files: RunFiles
    readonly trial: Trial | undefined
  },
): AsyncGenerator<TrainEvent, void> {
  const { pipeline, trainables, lora, adaptation, storage } = model
  const { outputDir } = config
  const { cancelled } = run
  const valid = data.valid?.examples
  const samples = (valid ?? []).slice(0, config.samples)
  yield* complete(model, samples, 'before', cancelled)

  const saving = (folder: string): SaveOptions => ({
    folder,
    trainables,
    tokenizerFiles: model.tokenizer.files,
    baseModel: config.model,
    lora,
    peftName: adaptation.peftName,
    storage,
    saveDtype: config.saveDtype,
    maxShardSize: config.maxShardSize,
    facts: [
      ['Training examples', data.train.summary.examples],
      ['Steps', totalSteps(config, data.train.examples)],
      ['Examples per step', config.perDeviceTrainBatchSize * config.gradientAccumulationSteps],
      ['Learning rate', config.learningRate],
      ['Seed', config.seed],
    ],
  })
  const checkpoints: string[] = []
  const training = startTraining({ config, pipeline, trainables, examples: data.train.examples })
  const checkpoint = async (): Promise<string> => {
    const folder = join(outputDir, `checkpoint-${training.state.step}`)
    await saveCheckpoint(saving(folder))
    if (!checkpoints.includes(folder)) checkpoints.push(folder)
    const tooMany = Math.max(0, checkpoints.length - (config.saveTotalLimit ?? Infinity))
    for (const oldest of checkpoints.splice(0, tooMany)) await rm(oldest, { recursive: true, force: true })
    return folder
  }
  const result = yield* train(training, { valid, trial: run.trial, saveCheckpoint: checkpoint, cancelled })
  await saveResult(saving(outputDir))
  yield { type: 'save', step: result.steps, path: outputDir }
  yield* complete(model, samples, 'after', cancelled)
  const { seconds, peakMemory } = usage(run.begun)
  await run.files.update({ status: 'done', seconds, peakMemory, result })
  yield { type: 'done', ...result, outputDir, seconds, peakMemory }
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
    const prompt = Array.from(ids.subarray(0, start))
    const expected = Array.from(ids.subarray(start))
    // A little more than was expected, so that a model that does not stop is seen not to.
    const maxNewTokens = expected.length + 8
    const completion = await generateGreedy({ pipeline, tokenizer, ids: prompt, maxNewTokens })
    yield { type: 'sample', when, prompt: tokenizer.decode(prompt), completion, expected: tokenizer.decode(expected) }
  }
}

async function startRun(
  config: TrainConfig,
  data: { readonly train: Dataset; readonly valid: Dataset | undefined },
): Promise<RunFiles> {
  const load = createRequire(import.meta.url)
  const own = load('lowrank/package.json') as { version: string }
  const runtime = load('onnxruntime-node/package.json') as { version: string }
  return RunFiles.create(
    config.outputDir,
    {
      config,
      versions: { lowrank: own.version, node: process.version, onnxruntime: runtime.version },
      hashes: {
        model: await hashFiles(await modelFiles(config.model)),
        train: await hashFiles([config.train]),
        ...(config.valid === undefined ? {} : { valid: await hashFiles([config.valid]) }),
        ...(config.adapter === undefined
          ? {}
          : { adapter: await hashFiles([join(config.adapter, 'adapter_model.safetensors')]) }),
      },
      data: data.train.summary,
    },
    [config.model, config.train, ...(config.adapter === undefined ? [] : [config.adapter])],
  )
}

function usage(begun: number): { readonly seconds: number; readonly peakMemory: number } {
  return { seconds: (performance.now() - begun) / 1000, peakMemory: process.resourceUsage().maxRSS * 1024 }
}

function pick({ maxLength, skipBadLines }: TrainConfig): Pick<TrainConfig, 'maxLength' | 'skipBadLines'> {
  return { maxLength, skipBadLines }
}
