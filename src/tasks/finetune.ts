import { join } from 'node:path'
import { cardName } from '../model/peft/card.ts'
import { readDecoderConfig } from '../model/config.ts'
import { choiceOf, type Quantization, quantizationText, unusedOptions, type TrainConfig } from '../config/index.ts'
import { peakMemory } from '../engine/machine.ts'
import { hashText } from '../formats/hash.ts'
import { fromHub, type Origin } from '../hub/resolve.ts'
import { openModelFiles } from '../formats/model-files.ts'
import { type DataFiles, readData, type TrainingData } from '../session/data.ts'
import { pickPrecision } from '../session/precision.ts'
import { sessionOf, type OpenModel } from '../session/session.ts'
import { findDataFiles } from './find-data.ts'
import { complete } from './samples.ts'
import { type Measure, openMeasure } from './measure.ts'
import { planEvent, watchBound, workloadOf } from '../train/workload.ts'
import { mayFallShort, type MemoryPlan } from '../session/plan.ts'
import { checkResumed, dayOfRun, findStart } from '../runs/resume.ts'
import { fileSinks } from '../report/sinks/index.ts'
import { withSinks } from '../report/sinks/sink.ts'
import { longestOf } from '../text/batches.ts'
import { templateName } from '../text/template/choose.ts'
import { companionFiles } from '../text/tokenizer.ts'
import { pruneCheckpoints, restoreTraining, saveCheckpoint, type Checkpoint } from '../runs/checkpoint.ts'
import type { TrainEvent } from '../train/events.ts'
import { cardsOf, claimOutputFolder, recordNames, type OutputFolder } from '../runs/output-folder.ts'
import { RunFiles } from '../runs/run-files.ts'
import { beginHashesOfModel, describeInputs, type ModelHashes, modelSize, type RunInputs } from '../runs/run-inputs.ts'
import { cardOf, resultNames, type SavedBase, saveResult, type SaveOptions } from '../export/save.ts'
import type { Trial } from '../train/step.ts'
import { startTraining, totalSteps, train, type Training } from '../train/trainer.ts'
import { LowrankError } from '../util/errors.ts'
import { parseHubName } from '../util/hub-name.ts'
import { formatSize } from '../util/format.ts'
import { reported, type TaskContext } from '../util/task.ts'

/** Bytes of a model that take seconds to read and hash, so that it should be said what the run waits for. */
const noticed = 4e9

/** The options of a run, and the file that they are from, if they are from one. */
interface FinetuneInput extends TrainConfig {
  readonly configFile?: string | undefined
}

/**
 * A training run, top to bottom: data, model, plan, training, files. Computes in the thread that calls it; `finetune` of the
 * public API calls it in a worker.
 */
export async function* runFinetune(
  { configFile, ...given }: FinetuneInput,
  { cancelled }: TaskContext,
): AsyncGenerator<TrainEvent, void> {
  const begun = performance.now()
  // Reported before there is a record to write them to, which is begun only once nothing is refused any more.
  const early: TrainEvent[] = []
  const noted = (event: TrainEvent): TrainEvent => {
    early.push(event)
    return event
  }
  for (const message of unusedOptions(given)) yield noted({ type: 'warning', message })
  const { config, origins } = yield* fromHub(given, { cancelled })
  // Refused before a folder is made for it.
  const { trunk } = await readDecoderConfig(config.model)
  if (config.method === 'full' && config.init === 'random' && trunk !== 'model') throw partOfMore(given.model)
  const { base, leftOut } = await readBase(config.model, origins.model, given.model)
  for (const message of leftOut) yield noted({ type: 'warning', message })
  const dataFiles = yield* findDataFiles(config, { cancelled })
  const reads = {
    ...pick(config, ['model', 'adapter', 'resumeFrom', 'schema', 'metricModule']),
    ...namesOf(dataFiles),
    configFile,
  }
  const makes = config.method === 'full' ? 'model' : 'adapter'
  const saved = config.chatTemplate === undefined ? base : withTemplate(base, '')
  const output = await claimOutputFolder({
    folder: config.outputDir,
    reads,
    makes,
    writes: [...recordNames, ...resultNames(makes, saved)],
    overwrite: config.overwriteOutputDir,
  })
  let unused = true
  // A large model takes minutes: it is hashed while it trains.
  const hashing = beginHashesOfModel(config.model)
  try {
    yield noted({ type: 'status', message: `reading ${config.train}` })
    const { from, notices } = await findStart(config)
    await using session = await sessionOf(config, cancelled)
    const measures = config.evalStrategy !== 'no' && (config.metrics ?? config.metricModule) !== undefined
    const dated = { ...config, templateDate: config.templateDate ?? dayOfRun(from) }
    const reading = { ...dated, keepSamples: measures }
    const data = yield* reported((report) => readData(session, dataFiles, reading, report))
    const writesDate = (await session.template(dated))?.writesDate === true
    const { metricExamples: limit } = config
    const asked = { config, session, model: config.model, reading, limit }
    const measure = measures && data.valid && (yield* openMeasure({ ...asked, dataset: data.valid }))
    // Its memory is free until there are samples to be made.
    session.tokenizer.close()
    yield noted({ type: 'data', train: data.train.summary, valid: data.valid?.summary })

    const longest = longestOf(data.train.examples)
    const { maxPositionEmbeddings } = session.decoder.config
    if (longest > maxPositionEmbeddings) {
      const message = `the longest example has ${longest} tokens, the model was made for ${maxPositionEmbeddings} (max_position_embeddings); set maxLength`
      yield noted({ type: 'warning', message })
    }
    const workload = workloadOf(config, data, session.decoder.regimeOf)
    const size = await modelSize(config.model)
    if (from !== undefined && size > noticed) {
      yield noted({ type: 'status', message: `computing the SHA-256 of ${formatSize(size)} of weights` })
    }
    const described = { ...given, origins, files: dataFiles, data }
    const known = from === undefined ? undefined : await hashing.hashes
    const inputs = await describeInputs(writesDate ? dated : config, session.decoder.threads, described, known)
    if (from !== undefined) notices.push(...checkResumed(from, config, inputs))
    for (const event of notices) yield noted(event)
    // The same choice, since it decides in which order is summed.
    const choice = config.resumeAnyway ? undefined : from?.record.memory
    const products =
      choice === undefined
        ? await pickPrecision(config.matmulPrecision, session.decoder)
        : { matmulPrecision: choice.matmulPrecision, why: 'as the run began' }
    const { matmulPrecision } = products
    const plan = session.plan(workload, {
      setting: config.activations,
      bound: config.memory,
      matmulPrecision,
      choice,
    })
    yield noted(planEvent(session.decoder, plan, { products, steps: totalSteps(config, data.train.examples) }))
    yield noted({ type: 'status', message: `loading ${given.model}` })
    const model = await session.load(plan)
    const { largest } = workload
    const trial = largest && mayFallShort(plan) ? { largest, smaller: plan.smaller } : undefined
    const training = startTraining({
      ...model,
      config,
      base: session.decoder.quantization,
      examples: data.train.examples,
    })
    if (from !== undefined) await restoreTraining(from, training, model.adaptation.fileName)
    unused = false
    const files = await RunFiles.open({
      folder: config.outputDir,
      output,
      inputs,
      data: data.train.summary,
      from,
      reads: Object.values(reads).filter((path) => path !== undefined),
    })
    for (const message of files.removed) yield noted({ type: 'warning', message })
    if (!output.writesCard && config.method !== 'full') {
      const message = `${join(config.outputDir, cardName)} was not written by Lowrank: it is left as it is`
      yield noted({ type: 'warning', message })
    }
    for (const event of files.samples) yield event
    const usage = (): { seconds: number; peakMemory: number } => ({
      seconds: (from?.record.seconds ?? 0) + (performance.now() - begun) / 1000,
      peakMemory: peakMemory(),
    })
    const resumedFrom = from?.record.state.step
    const { quantization } = session.decoder
    const template = config.chatTemplate === undefined ? undefined : await session.template(config)
    const parts = {
      config,
      base: template === undefined ? base : withTemplate(base, template.source),
      data,
      model,
      training,
      quantization,
      output,
      from,
      files,
      inputs,
      modelHashes: hashing.hashes,
      plan,
      measure: measure || undefined,
    }
    const run = new Run({ ...parts, trial, usage, cancelled })
    try {
      yield* withSinks(fileSinks({ config, startedAt: files.startedAt, resumedFrom }), run.recorded(early))
    } finally {
      await files.close()
    }
  } finally {
    hashing.stop()
    await output.release({ unused })
  }
}

function partOfMore(model: string): LowrankError {
  return new LowrankError(
    'config',
    `init random makes the part for texts of ${model}, and method full writes a whole model: what sees images would be missing`,
    { hint: 'Begin with the weights of the model (init pretrained).' },
  )
}

/** What is written again of a base model, and what is not, in words; `asked`: what the user calls it. */
async function readBase(
  model: string,
  origin: Origin | undefined,
  asked: string,
): Promise<{ base: SavedBase; leftOut: readonly string[] }> {
  const opened = await openModelFiles(model)
  const { files, leftOut } = await opened.small(companionFiles)
  const config = await opened.text('config.json')
  const named = origin === undefined ? { name: asked } : { name: origin.id, revision: parseHubName(asked)?.revision }
  return { base: { ...named, config, companions: files }, leftOut }
}

/** With another template than the model's: whoever uses the result writes conversations with that. */
function withTemplate(base: SavedBase, source: string): SavedBase {
  return { ...base, companions: new Map([...base.companions, [templateName, Buffer.from(source)]]) }
}

interface RunParts {
  readonly config: TrainConfig
  readonly base: SavedBase
  readonly data: TrainingData
  readonly model: OpenModel
  readonly training: Training
  /** How the base is held. */
  readonly quantization: Quantization | undefined
  readonly output: OutputFolder
  readonly from: Checkpoint | undefined
  readonly files: RunFiles
  /** Without the hashes of the model, where the run begins. */
  readonly inputs: RunInputs
  readonly modelHashes: Promise<ModelHashes>
  readonly plan: MemoryPlan
  readonly trial: Trial | undefined
  /** What measures the answers to validation data, where evaluations are to. */
  readonly measure: Measure | undefined
  readonly usage: () => { readonly seconds: number; readonly peakMemory: number }
  readonly cancelled: () => boolean
}

/** A run whose model is loaded. */
class Run {
  readonly #o: RunParts
  /** The step of the last checkpoint that was written. */
  #saved = 0
  #inputs: RunInputs | undefined

  constructor(parts: RunParts) {
    this.#o = parts
    this.#saved = parts.training.state.step
  }

  /**
   * Trains and saves. Each event is in the record of the run before it is passed on, after those that came `early`; so is how the run ended.
   */
  async *recorded(early: readonly TrainEvent[]): AsyncGenerator<TrainEvent, void> {
    const { files, plan, training, usage } = this.#o
    try {
      for (const event of early) await files.log(event)
      for await (const event of watchBound(plan, this.#events())) {
        await files.log(event)
        yield event
      }
    } catch (error) {
      const path = await this.#rescue()
      if (path !== undefined) yield { type: 'save', step: training.state.step, path }
      const status = error instanceof LowrankError && error.code === 'cancelled' ? 'cancelled' : 'failed'
      // What went wrong before is what counts: the disk may be full.
      await files.update({ status, ...usage(), result: String(error) }).catch(() => {})
      throw error
    }
  }

  async *#events(): AsyncGenerator<TrainEvent, void> {
    const { config, data, model, training, files, output, from, trial, usage, cancelled } = this.#o
    const { outputDir } = config
    const valid = data.valid?.examples
    const samples = (valid ?? []).slice(0, config.samples)
    if (from === undefined) yield* complete(model, samples, 'before', cancelled)
    const saveCheckpoint = (options?: { readonly keepOthers: boolean }): Promise<string> => this.#save(options)
    const measure = this.#measure()
    const result = yield* train(training, { valid, measure, trial, saveCheckpoint, cancelled })
    const before = (names: readonly string[]): Promise<void> => files.addFiles(names)
    const saved = { ...this.#resultIn(outputDir), writesCard: output.writesCard, before }
    const card = cardOf(saved)
    if (card !== undefined) await files.update({ cards: [...cardsOf(output.earlier), hashText(card)] })
    await saveResult(saved)
    yield { type: 'save', step: result.steps, path: outputDir }
    yield* complete(model, samples, 'after', cancelled)
    const used = usage()
    await this.#described()
    await files.update({ status: 'done', ...used, result })
    yield { type: 'done', ...result, outputDir, ...used }
  }

  /** What measures the answers of the model, as it is then. */
  #measure(): Parameters<typeof train>[1]['measure'] {
    const { measure, model, cancelled } = this.#o
    if (measure === undefined) return undefined
    return async function* () {
      const { metrics, confusion } = yield* measure.run(await model.generation(), cancelled)
      model.tokenizer.close()
      return { metrics, ...(confusion === undefined ? {} : { confusion }) }
    }
  }

  /**
   * Saves what was learned since the last checkpoint, when something else has gone wrong; where, or undefined if there is nothing, or it
   * cannot be written.
   */
  async #rescue(): Promise<string | undefined> {
    if (this.#o.training.state.step === this.#saved) return undefined
    return this.#save({ keepOthers: true }).catch(() => undefined)
  }

  async #save({ keepOthers = false } = {}): Promise<string> {
    const { config, training, files, plan, usage } = this.#o
    const { step } = training.state
    const folder = join(config.outputDir, `checkpoint-${step}`)
    const inputs = await this.#described()
    const about = {
      startedAt: files.startedAt,
      ...usage(),
      metricsBytes: await files.sync(),
      inputs,
      memory: choiceOf(plan),
    }
    await saveCheckpoint({ training, result: this.#resultIn(folder), about })
    this.#saved = step
    if (!keepOthers && config.saveTotalLimit !== undefined)
      await pruneCheckpoints(config.outputDir, config.saveTotalLimit)
    return folder
  }

  /** What the run is made from, once its model is hashed. */
  async #described(): Promise<RunInputs> {
    const { files, inputs, modelHashes } = this.#o
    if (this.#inputs !== undefined) return this.#inputs
    const hashes = { ...(await modelHashes), ...inputs.hashes }
    await files.update({ hashes })
    this.#inputs = { ...inputs, hashes }
    return this.#inputs
  }

  /** How the weights of the run are written to a folder. */
  #resultIn(folder: string): SaveOptions {
    const { config, base, data, model, training, quantization } = this.#o
    return {
      folder,
      trainables: model.trainables,
      base,
      lora: model.lora,
      fileName: model.adaptation.fileName,
      beside: model.beside,
      storage: model.storage,
      saveDtype: config.saveDtype,
      maxShardSize: config.maxShardSize,
      facts: [
        ['Base model', quantization === undefined ? 'as it is stored' : `quantized, ${quantizationText(quantization)}`],
        ['Training examples', data.train.summary.examples],
        ['Steps', training.steps],
        ['Examples per step', config.perDeviceTrainBatchSize * config.gradientAccumulationSteps],
        ['Learning rate', config.learningRate],
        ['Seed', config.seed],
      ],
    }
  }
}

/** The files of a run by the option that names them. */
function namesOf({ train, valid = [] }: DataFiles): Record<string, string> {
  const named = (option: string, sources: DataFiles['train']): (readonly [string, string])[] =>
    sources.map(({ path }, i) => [i === 0 ? option : `${option} (${i + 1})`, path])
  return Object.fromEntries([...named('train', train), ...named('valid', valid)])
}

function pick<T, const K extends keyof T>(from: T, keys: readonly K[]): Pick<T, K> {
  return Object.fromEntries(keys.map((key) => [key, from[key]])) as Pick<T, K>
}
