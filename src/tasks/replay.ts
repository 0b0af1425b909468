import { basename } from 'node:path'
import { choiceOf, type MemoryChoice, parseTrainConfig, type TrainConfig } from '../config/index.ts'
import { readData } from '../session/data.ts'
import { standardInput } from '../formats/chunks.ts'
import { findDataFiles } from './find-data.ts'
import { sessionOf, type OpenModel } from '../session/session.ts'
import { exactName, fromHub } from '../hub/resolve.ts'
import { readRun, type Run } from '../runs/read.ts'
import { exampleLosses, stepBatches } from '../text/batches.ts'
import { listCheckpoints, readCheckpoint, restoreTraining, type Checkpoint } from '../runs/checkpoint.ts'
import { changedInputs, changedVersions, describeInputs, hashesOfModel, type RunInputs } from '../runs/run-inputs.ts'
import { startTraining, trainStep, type Training } from '../train/trainer.ts'
import { LowrankError } from '../util/errors.ts'
import { reported, status, type StatusEvent, type TaskContext } from '../util/task.ts'

/** An example of a replayed step. */
export interface ReplayedExample {
  /** Line, or row, of the training data, from 1. */
  readonly line: number
  readonly unit: 'line' | 'row'
  /** Micro-batch of the step, from 1. */
  readonly microBatch: number
  readonly tokens: number
  readonly labelTokens: number
  /** Mean over its label tokens, in nats. */
  readonly loss: number
  /** What its labels spell. */
  readonly completion: string
}

export interface ReplayResult {
  /** Folder of the run. */
  readonly run: string
  readonly step: number
  /** Epochs done with this step; fractional. */
  readonly epoch: number
  /** Which weights the step began with. */
  readonly weights: {
    /** Those of the run, from the start or a checkpoint on; or those of a folder, as they are. */
    readonly from: 'start' | 'checkpoint' | 'folder'
    readonly path?: string
    /** Steps computed again to come from there to the step. */
    readonly recomputed: number
  }
  /** The loss that the run recorded for the step; undefined where it never came to it. */
  readonly recorded: number | undefined
  /** Mean over the label tokens of the step, in nats, as computed now. */
  readonly loss: number
  /** Whether both are the same number, to the last bit. */
  readonly equal: boolean
  /** Of the steps computed again, the first whose loss differs from the one recorded. */
  readonly firstDifference: number | undefined
  readonly labelTokens: number
  readonly microBatches: number
  readonly examples: readonly ReplayedExample[]
}

export interface ReplayConfig {
  /** Output folder of a run. */
  readonly run: string
  readonly step: number
  /** The folder whose weights are taken as they are. */
  readonly at?: string | undefined
  readonly sort: 'loss' | 'batch'
  /** Whether model or data may have changed since the run. */
  readonly anyway: boolean
}

/**
 * Computes a step of an earlier run again, with its batches and dropout masks, and reports the loss of each example. The weights before the
 * step are made again from the newest checkpoint before it, so the loss is the one that the run recorded, to the last bit.
 *
 * @throws LowrankError `data`: there is no run; `config`: it has no such step, or its model or data have changed; `cancelled`.
 */
export async function* runReplay(
  input: ReplayConfig,
  { cancelled }: TaskContext,
): AsyncGenerator<StatusEvent, ReplayResult> {
  const run = await readRun(input.run)
  const { config: recorded, choice, inputs } = recordOf(run)
  const { model: base, adapter } = run.origins
  // As they were then, where their branch has moved on.
  const named = {
    ...recorded,
    ...(base === undefined ? {} : { model: exactName(base) }),
    ...(adapter === undefined ? {} : { adapter: exactName(adapter) }),
  }
  const { config, origins } = yield* fromHub(named, { cancelled })
  yield status(`reading ${recorded.model} and ${recorded.train}`)
  const files = yield* findDataFiles(config, { cancelled })
  if (files.train.some(({ path }) => path === standardInput)) {
    throw new LowrankError('config', `cannot replay ${input.run}: its data came from standard input`)
  }
  const names = { ...named, origins, files }
  const now = await describeInputs(config, inputs.threads, names, await hashesOfModel(config.model))
  yield* checkInputs(run, { inputs, now, anyway: input.anyway })
  await using session = await sessionOf(input.at === undefined ? config : withWeightsOf(config, input.at), cancelled)
  const { train } = yield* reported((report) => readData(session, files, config, report))
  session.tokenizer.close()
  const model = await session.load(choice)
  const training = startTraining({ ...model, base: session.decoder.quantization, config, examples: train.examples })
  if (input.step > training.steps) {
    throw new LowrankError('config', `step ${input.step}: ${input.run} takes ${training.steps} steps`)
  }
  const { weights, firstDifference } = yield* approach({ input, run, inputs, model, training, cancelled })
  return { ...(await lastStep(input, run, model, training, cancelled)), weights, firstDifference }
}

/** What a run says of itself: how it was configured, and what it spent memory on. */
function recordOf(run: Run): {
  readonly config: TrainConfig
  readonly choice: MemoryChoice
  readonly inputs: RunInputs
} {
  const { folder, plan } = run
  if (plan === undefined) {
    throw new LowrankError('data', `${folder}: metrics.jsonl has no plan of memory and threads`, {
      hint: 'The run ended before it began to train, or its metrics.jsonl is not the one it wrote.',
    })
  }
  const { threads } = plan
  return {
    // As many threads as then: their number decides in which order is summed.
    config: parseTrainConfig({ ...run.config, threads }),
    choice: choiceOf(plan),
    inputs: {
      config: run.config,
      versions: run.versions,
      hashes: run.hashes,
      origins: run.origins,
      threads,
    },
  }
}

async function* checkInputs(
  { folder }: Run,
  { inputs, now, anyway }: { readonly inputs: RunInputs; readonly now: RunInputs; readonly anyway: boolean },
): AsyncGenerator<StatusEvent, void> {
  const changes = changedInputs(inputs, now)
  const list = changes.map((change) => `\n  ${change}`).join('')
  if (changes.length > 0 && !anyway) {
    throw new LowrankError('config', `cannot replay ${folder}: its inputs have changed since:${list}`, {
      hint: 'Restore them, or replay with the current ones: "anyway" (--anyway).',
    })
  }
  if (changes.length > 0) yield status(`warning: the inputs of the run have changed since:${list}`)
  const versions = changedVersions(inputs, now)
  if (versions.length > 0) {
    const made = `the run was made by other versions (${versions.join(', ')})`
    yield status(`warning: ${made}: losses may differ in their last bits`)
  }
}

/** The run with weights of a folder instead of those it begins with. */
function withWeightsOf(config: TrainConfig, folder: string): TrainConfig {
  return config.method === 'full' ? { ...config, model: folder, init: 'pretrained' } : { ...config, adapter: folder }
}

/** Brings weights, optimizer and state to where they were before the step. */
async function* approach(parts: {
  readonly input: ReplayConfig
  readonly run: Run
  readonly inputs: RunInputs
  readonly model: OpenModel
  readonly training: Training
  readonly cancelled: () => boolean
}): AsyncGenerator<StatusEvent, Pick<ReplayResult, 'weights' | 'firstDifference'>> {
  const { input, run, inputs, model, training, cancelled } = parts
  const { state } = training
  if (input.at !== undefined) {
    state.step = input.step - 1
    return { weights: { from: 'folder', path: input.at, recomputed: 0 }, firstDifference: undefined }
  }
  const checkpoint = yield* checkpointBefore(input, inputs)
  if (checkpoint !== undefined) await restoreTraining(checkpoint, training, model.adaptation.fileName)
  const first = state.step + 1
  const recomputed = input.step - first
  const origin = checkpoint === undefined ? 'the start' : basename(checkpoint.folder)
  if (recomputed > 0) {
    const steps = recomputed === 1 ? `step ${first}` : `steps ${first} to ${input.step - 1}`
    yield status(`computing ${steps} from ${origin} on`)
  }
  let firstDifference: number | undefined
  const begun = performance.now()
  let reported = begun
  while (state.step < input.step - 1) {
    const { step, loss, verdict } = await trainStep(training, { cancelled })
    if (verdict.action === 'stop') {
      throw new LowrankError('config', `step ${input.step}: the run ended at step ${step}, whose loss was a spike`)
    }
    const recorded = recordedLoss(run, step)
    if (recorded !== undefined && recorded !== loss) firstDifference ??= step
    const now = performance.now()
    if (now - reported < 5000) continue
    reported = now
    const left = ((now - begun) / 1000 / (step - first + 1)) * (input.step - step)
    yield status(`step ${step} of ${input.step}, about ${Math.ceil(left)} s left`)
  }
  const weights =
    checkpoint === undefined
      ? { from: 'start' as const, recomputed }
      : { from: 'checkpoint' as const, path: checkpoint.folder, recomputed }
  return { weights, firstDifference }
}

/** The newest whole checkpoint of the run before the step. */
async function* checkpointBefore(
  { run, step }: ReplayConfig,
  inputs: RunInputs,
): AsyncGenerator<StatusEvent, Checkpoint | undefined> {
  const before = (await listCheckpoints(run)).filter((one) => one.step < step)
  for (const { folder } of before.reverse()) {
    try {
      const checkpoint = await readCheckpoint(folder)
      // With other inputs it was written before the run went on by resumeAnyway.
      if (changedInputs(checkpoint.record.inputs, inputs).length === 0) return checkpoint
    } catch (error) {
      if (!(error instanceof LowrankError && error.code === 'checkpoint')) throw error
      yield status(`warning: ${error.message}`)
    }
  }
  return undefined
}

function recordedLoss({ steps }: Run, step: number): number | undefined {
  return steps.loss[steps.step.indexOf(step)]
}

async function lastStep(
  { step, sort }: ReplayConfig,
  run: Run,
  { tokenizer }: OpenModel,
  training: Training,
  cancelled: () => boolean,
): Promise<Omit<ReplayResult, 'weights' | 'firstDifference'>> {
  const { batches } = stepBatches({ ...training.order, step: step - 1 })
  const examples: Omit<ReplayedExample, 'completion'>[] = []
  const completions: Int32Array[] = []
  const onLosses = (losses: Float32Array, index: number): void => {
    for (const { example, lossSum, labelTokens } of exampleLosses(batches[index]!, losses)) {
      const { ids, labelMask, line, unit = 'line' } = example
      completions.push(ids.filter((_, t) => labelMask[t] === 1))
      const loss = lossSum / labelTokens
      examples.push({ line, unit, microBatch: index + 1, tokens: ids.length, labelTokens, loss })
    }
  }
  const { epoch, loss, labelTokens } = await trainStep(training, { cancelled, onLosses })
  const texts = await tokenizer.decode(completions)
  const shown = examples.map((example, i) => ({ ...example, completion: texts[i] ?? '' }))
  if (sort === 'loss') shown.sort((a, b) => b.loss - a.loss)
  const recorded = recordedLoss(run, step)
  const common = { run: run.folder, step, epoch, recorded, loss, equal: recorded === loss }
  return { ...common, labelTokens, microBatches: batches.length, examples: shown }
}
