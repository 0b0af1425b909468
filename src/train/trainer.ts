import { z } from 'zod'
import type { Quantization } from '../config/index.ts'
import type { Pipeline } from '../engine/pipeline.ts'
import { evalBatches, stepBatches, stepsPerEpoch, type TrainingOrder } from '../text/batches.ts'
import type { Examples } from '../text/example.ts'
import { LowrankError } from '../util/errors.ts'
import type { LengthConfig, OrderConfig, TrainingConfig } from './config.ts'
import { evaluateBatches } from './evaluate.ts'
import { costOf, costOfBest, criterionOf, valueIn } from './criterion.ts'
import type { BestEvaluation, EvalResult, TrainEvent } from './events.ts'
import type { Trainable } from '../engine/trainable.ts'
import { clipFactor, gradientNorm, makeOptimizer, type Optimizer } from './optimizer.ts'
import { learningRates } from './schedule.ts'
import {
  accumulateGradients,
  type GradientOptions,
  sizeText,
  tryLargest,
  type StepGradients,
  type Trial,
} from './step.ts'
import { judgeEvaluation, judgeStep, spikeError, startWatch, type Verdict, watchSchema } from './watch.ts'

const count = z.int().min(0)

/**
 * How far a run is. With the weights and the state of the optimizer it is all that the steps to come depend on; a checkpoint
 * stores it as JSON, so numbers are finite.
 */
export const trainerStateSchema = z.object({
  /** Optimizer steps done. */
  step: count,
  /** Epochs done; fractional. */
  epoch: z.number().min(0),
  /** The step after which was evaluated last; -1 before any evaluation. */
  evaluated: z.int().min(-1),
  /** Sum of the losses of all steps whose update was applied, and how many were not. */
  lossTotal: z.number(),
  skipped: count,
  /** The same since the last log, which was at step `logged`. */
  sinceLog: z.number(),
  skippedSinceLog: count,
  logged: count,
  /** Positions computed by all steps, those that are no padding, and those that predict a label. */
  tokens: count,
  realTokens: count,
  labelTokens: count,
  /** The best evaluation so far. */
  best: z
    .object({
      step: count,
      loss: z.number(),
      metric: z.object({ name: z.string(), value: z.number() }).readonly().optional(),
    })
    .readonly()
    .optional(),
  watch: watchSchema,
  /** Why the run ends before its last step: evaluations no longer got better. */
  stopped: z.string().optional(),
})

type TrainerState = z.output<typeof trainerStateSchema>

/** A run in memory. Nothing of it but `state`, weights and optimizer changes from step to step. */
export interface Training {
  readonly config: TrainingConfig
  /** How the base is quantized. */
  readonly base: Quantization | undefined
  readonly pipeline: Pipeline
  readonly trainables: ReadonlyMap<string, Trainable>
  readonly optimizer: Optimizer
  readonly order: TrainingOrder
  /** Optimizer steps of the whole run. */
  readonly steps: number
  readonly state: TrainerState
  /** With `loadBestModelAtEnd`, the weights as they were at `state.best`; empty before. */
  readonly bestWeights: Map<string, Float32Array>
}

interface TrainingParts {
  readonly config: TrainingConfig
  readonly base?: Quantization | undefined
  readonly pipeline: Pipeline
  readonly trainables: ReadonlyMap<string, Trainable>
  readonly examples: Examples
}

/** A run before its first step. */
export function startTraining({ config, base, pipeline, trainables, examples }: TrainingParts): Training {
  return {
    config,
    base,
    pipeline,
    trainables,
    optimizer: makeOptimizer(trainables.values(), config),
    order: orderOf(config, examples),
    steps: totalSteps(config, examples),
    state: {
      step: 0,
      epoch: 0,
      evaluated: -1,
      lossTotal: 0,
      skipped: 0,
      sinceLog: 0,
      skippedSinceLog: 0,
      logged: 0,
      tokens: 0,
      realTokens: 0,
      labelTokens: 0,
      best: undefined,
      watch: startWatch(),
      stopped: undefined,
    },
    bestWeights: new Map(),
  }
}

/** Optimizer steps a run takes. */
export function totalSteps(config: LengthConfig, examples: Examples): number {
  return config.maxSteps > 0
    ? config.maxSteps
    : Math.ceil(config.numTrainEpochs * stepsPerEpoch(orderOf(config, examples)))
}

/** What decides the batches of a run. */
export function orderOf(config: OrderConfig, examples: Examples): TrainingOrder {
  const { seed, perDeviceTrainBatchSize: batchSize, gradientAccumulationSteps: accumulation } = config
  const { packing, padToMultipleOf, groupByLength } = config
  return { examples, seed, batchSize, accumulation, packing, padToMultipleOf, groupByLength } as const
}

/** What an optimizer step has found. */
export interface StepResult extends StepGradients {
  readonly step: number
  readonly epoch: number
  /** Mean over the label tokens of the step. */
  readonly loss: number
  readonly learningRate: number
  /** Before clipping. */
  readonly gradNorm: number
  /** What became of it. */
  readonly verdict: Verdict
}

/**
 * The optimizer step after `state.step`: weights, optimizer and state go on by one. What `onSpike` does not let through leaves weights and
 * optimizer as they were (verdict `skip`), and the state too (`stop`: the step is not done). Which batches and dropout masks it takes is a
 * function of seed and step, so that any step can be made again from the weights and the state before it.
 *
 * @throws LowrankError `cancelled`: weights, optimizer and state are as they were.
 */
export async function trainStep(
  training: Training,
  options: Pick<GradientOptions, 'cancelled' | 'onLosses'> = {},
): Promise<StepResult> {
  const { config, base, pipeline, trainables, optimizer, order, state } = training
  const step = state.step + 1
  const { epoch, batches } = stepBatches({ ...order, step: step - 1 })
  const learningRate = learningRates(config, training.steps)(step - 1)
  let found: StepResult
  try {
    const parts = { pipeline, trainables, batches, seed: config.seed, step, noiseAlpha: config.neftuneNoiseAlpha }
    const sums = await accumulateGradients({ ...parts, ...options })
    const loss = sums.lossSum / sums.labelTokens
    const gradNorm = gradientNorm(trainables.values()) / sums.labelTokens
    const lines = batches.flatMap(({ examples }) => examples.map(({ line }) => line))
    const watched = { step, epoch, loss, gradNorm, labelTokens: sums.labelTokens, lines }
    const verdict = judgeStep({ config, base, state: state.watch }, watched)
    found = { ...sums, step, epoch, loss, learningRate, gradNorm, verdict }
  } catch (error) {
    forgetGradients(training)
    throw error
  }
  const { action } = found.verdict
  if (action !== 'apply') forgetGradients(training)
  if (action === 'stop') return found
  if (action === 'apply') {
    optimizer.step(learningRate, clipFactor(found.gradNorm, config.maxGradNorm) / found.labelTokens)
    state.lossTotal += found.loss
    state.sinceLog += found.loss
  } else {
    state.skipped++
    state.skippedSinceLog++
  }
  state.step = step
  state.epoch = epoch
  state.tokens += found.tokens
  state.realTokens += found.realTokens
  state.labelTokens += found.labelTokens
  return found
}

function forgetGradients({ trainables }: Training): void {
  for (const { gradient } of trainables.values()) gradient.fill(0)
}

interface TrainOptions {
  readonly valid: Examples | undefined
  /** Measures what the model answers to the validation data, as it is now. */
  readonly measure?: (() => AsyncGenerator<TrainEvent, Pick<EvalResult, 'metrics' | 'confusion'>>) | undefined
  /** Computed before anything else, unless the first step does anyway. */
  readonly trial?: Trial | undefined
  /** Writes a checkpoint of the run as it is now and returns its folder. `keepOthers`: whatever `saveTotalLimit` says. */
  readonly saveCheckpoint: (options?: { readonly keepOthers: boolean }) => Promise<string>
  readonly cancelled: () => boolean
}

interface TrainerResult {
  readonly steps: number
  /** Mean of all step losses whose update was applied. */
  readonly trainLoss: number
  /** Positions computed, those that are no padding, those that predict a label, and the share of padding, 0 to 1. */
  readonly tokens: number
  readonly realTokens: number
  readonly labelTokens: number
  readonly paddingShare: number
  readonly best: BestEvaluation | undefined
  readonly stoppedEarly?: { readonly step: number; readonly reason: string }
}

/**
 * Trains until the last step, with an event for each. With `loadBestModelAtEnd` the weights end as they were at the best
 * evaluation. Checkpoints are written between steps only, so that they hold no half of a step. Cancelled, or stopped by a spike, it
 * saves one of the last whole step and throws.
 */
export async function* train(training: Training, options: TrainOptions): AsyncGenerator<TrainEvent, TrainerResult> {
  const { config, pipeline, trainables, steps, state } = training
  const { cancelled } = options
  const validBatches = options.valid && evalBatches(options.valid, config.perDeviceEvalBatchSize, config)
  const evaluate = async function* (): AsyncGenerator<TrainEvent> {
    if (validBatches === undefined || state.evaluated === state.step || !isEvaluated(training)) return
    const start = performance.now()
    const losses = await evaluateBatches({ pipeline, batches: validBatches, cancelled })
    const result = { ...losses, ...(options.measure && (yield* options.measure())) }
    const criterion = criterionOf(config)
    const best = offer(training, result)
    const { step, epoch } = state
    const watch = { config, base: training.base, state: state.watch }
    const { overfitting, stop } = judgeEvaluation(watch, {
      step,
      epoch,
      loss: result.loss,
      cost: costOf(criterion, valueIn(criterion, result)),
    })
    if (step < steps) state.stopped = stop
    yield { type: 'eval', step, epoch, seconds: (performance.now() - start) / 1000, best, ...result }
    if (overfitting !== undefined) yield overfitting
  }
  try {
    yield* tryFirst(training, options)
    // Before the first step; or what a run left undone that was cancelled in it.
    yield* evaluate()
    const [begun, first] = [performance.now(), state.step]
    while (state.step < steps && state.stopped === undefined) {
      const start = performance.now()
      const readBefore = pipeline.bytesRead
      const done = await trainStep(training, { cancelled })
      const { step, epoch, loss, learningRate, gradNorm, tokens, realTokens, labelTokens } = done
      const { action, spike } = done.verdict
      if (spike !== undefined) yield spike
      if (spike !== undefined && action === 'stop') throw spikeError(spike)
      const now = performance.now()
      const seconds = (now - start) / 1000
      const common = { step, epoch, loss, learningRate, gradNorm }
      yield {
        type: 'step',
        ...common,
        steps,
        tokens,
        realTokens,
        labelTokens,
        paddingShare: paddingShare({ tokens, realTokens }),
        seconds,
        tokensPerSecond: tokens / seconds,
        bytesRead: pipeline.bytesRead - readBefore,
        memory: process.memoryUsage.rss(),
        secondsLeft: ((now - begun) / 1000 / (step - first)) * (steps - step),
      }
      const logged = step - state.logged - state.skippedSinceLog
      if (step % config.loggingSteps === 0 && logged > 0) {
        yield { type: 'log', ...common, loss: state.sinceLog / logged }
        Object.assign(state, { sinceLog: 0, skippedSinceLog: 0, logged: step })
      }
      yield* evaluate()
      if (isDue(training, config.saveStrategy, config.saveSteps)) {
        yield { type: 'save', step, path: await options.saveCheckpoint() }
      }
    }
  } catch (error) {
    if (!(error instanceof LowrankError && (error.code === 'cancelled' || error.code === 'diverged'))) throw error
    const diverged = error.code === 'diverged'
    // Before the first step there is nothing that was learned.
    if (diverged && state.step === 0) throw error
    // The weights are those of the last whole step: gradients or an evaluation were under way. If they are what is wrong, an earlier
    // checkpoint is needed.
    const path = await options.saveCheckpoint({ keepOthers: diverged })
    yield { type: 'save', step: state.step, path }
    if (diverged) {
      throw new LowrankError('diverged', `${error.message}; the weights before it are in ${path}`, {
        hint: `${error.hint} With --resume --resume-anyway, a run with other options continues from there.`,
      })
    }
    const message = `cancelled after step ${state.step} of ${steps}; its weights are in ${path}`
    throw new LowrankError('cancelled', message, { hint: 'The same run with --resume continues from there.' })
  }
  for (const [name, weights] of training.bestWeights) trainables.get(name)?.data.set(weights)
  const { step, tokens, realTokens, labelTokens, best, stopped } = state
  const counts = { tokens, realTokens, labelTokens, paddingShare: paddingShare(state) }
  const trainLoss = state.lossTotal / (step - state.skipped)
  return {
    steps: step,
    trainLoss,
    ...counts,
    best,
    ...(stopped === undefined ? {} : { stoppedEarly: { step, reason: stopped } }),
  }
}

/** The share of computed positions that are padding, 0 to 1. */
function paddingShare({ tokens, realTokens }: Pick<StepGradients, 'tokens' | 'realTokens'>): number {
  return tokens === 0 ? 0 : 1 - realTokens / tokens
}

/** Computes the largest micro-batch, unless it is among the first thing that the run does. */
async function* tryFirst(training: Training, { trial, cancelled }: TrainOptions): AsyncGenerator<TrainEvent> {
  const { pipeline, trainables, order, state, steps } = training
  if (trial === undefined || state.step === steps) return
  if (trial.largest.step === state.step && !isEvaluated(training)) return
  yield { type: 'status', message: `trying the largest micro-batch first: ${sizeText(trial.largest.size)}` }
  await tryLargest({ pipeline, trainables, order, trial, cancelled })
}

/** Whether something that happens every so many steps, or each epoch, is due after the step that was done last. */
function isDue({ state, order }: Training, strategy: 'no' | 'steps' | 'epoch', every: number | undefined): boolean {
  return strategy === 'steps'
    ? state.step % (every ?? Infinity) === 0
    : strategy === 'epoch' && state.step % stepsPerEpoch(order) === 0
}

/** The last step is always evaluated, so that a run ends with a figure for what it made. */
function isEvaluated(training: Training): boolean {
  const { config, state, steps } = training
  if (state.step === 0) return config.evalOnStart
  if (config.evalStrategy === 'no') return false
  return state.step === steps || isDue(training, config.evalStrategy, config.evalSteps)
}

/** Notes the evaluation after the step that was done last; whether it is the best so far. */
function offer({ config, state, trainables, bestWeights }: Training, result: EvalResult): boolean {
  const { step } = state
  state.evaluated = step
  const criterion = criterionOf(config)
  const value = valueIn(criterion, result)
  // What is no number is never the best.
  if (!(costOf(criterion, value) < costOfBest(criterion, state.best))) return false
  const { name } = criterion
  state.best = { step, loss: result.loss, ...(name === 'loss' ? {} : { metric: { name, value } }) }
  if (!config.loadBestModelAtEnd) return true
  for (const [name, { data }] of trainables) {
    const kept = bestWeights.get(name)
    if (kept === undefined) bestWeights.set(name, data.slice())
    else kept.set(data)
  }
  return true
}
