import type { TrainConfig } from '../config.ts'
import type { Pipeline } from '../engine/pipeline.ts'
import { evalBatches, stepBatches, stepsPerEpoch, type TrainingOrder } from '../text/batches.ts'
import type { Example } from '../text/examples.ts'
import { LowrankError } from '../util/errors.ts'
import { evaluateBatches } from './evaluate.ts'
import type { TrainEvent } from './events.ts'
import { clipFactor, gradientNorm, makeOptimizer, type Optimizer, type Trainable } from './optimizer.ts'
import { learningRates } from './schedule.ts'
import { accumulateGradients, sizeText, tryLargest, type StepGradients, type Trial } from './step.ts'

/**
 * How far a run is. With the weights and the state of the optimizer it is all that the steps to come depend on; a checkpoint
 * stores it as JSON, so numbers are finite.
 */
export interface TrainerState {
  /** Optimizer steps done. */
  step: number
  /** Epochs done; fractional. */
  epoch: number
  /** The step after which was evaluated last; -1 before any evaluation. */
  evaluated: number
  /** Sum of the losses of all steps. */
  lossTotal: number
  /** Sum of the losses since the last log, which was at step `logged`. */
  sinceLog: number
  logged: number
  /** Positions computed by all steps, those that are no padding, and those that predict a label. */
  tokens: number
  realTokens: number
  labelTokens: number
  /** The lowest evaluation loss so far. */
  best: { readonly step: number; readonly loss: number } | undefined
}

/** A run in memory. Nothing of it but `state`, weights and optimizer changes from step to step. */
export interface Training {
  readonly config: TrainConfig
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

export interface TrainingParts {
  readonly config: TrainConfig
  readonly pipeline: Pipeline
  readonly trainables: ReadonlyMap<string, Trainable>
  readonly examples: readonly Example[]
}

/** A run before its first step. */
export function startTraining({ config, pipeline, trainables, examples }: TrainingParts): Training {
  return {
    config,
    pipeline,
    trainables,
    optimizer: makeOptimizer(trainables.values(), config),
    order: orderOf(config, examples),
    steps: totalSteps(config, examples),
    state: {
      ...{ step: 0, epoch: 0, evaluated: -1, lossTotal: 0, sinceLog: 0, logged: 0 },
      ...{ tokens: 0, realTokens: 0, labelTokens: 0, best: undefined },
    },
    bestWeights: new Map(),
  }
}

/** Optimizer steps a run takes. */
export function totalSteps(config: TrainConfig, examples: readonly Example[]): number {
  return config.maxSteps > 0
    ? config.maxSteps
    : Math.ceil(config.numTrainEpochs * stepsPerEpoch(orderOf(config, examples)))
}

/** What decides the batches of a run. */
export function orderOf(config: TrainConfig, examples: readonly Example[]): TrainingOrder {
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
}

/**
 * The optimizer step after `state.step`: weights, optimizer and state go on by one. Which batches and dropout masks it takes is a
 * function of seed and step, so that any step can be made again from the weights and the state before it.
 *
 * @throws LowrankError `cancelled`, `diverged`: weights, optimizer and state are as they were.
 */
export async function trainStep(training: Training, cancelled?: () => boolean): Promise<StepResult> {
  const { config, pipeline, trainables, optimizer, order, state } = training
  const step = state.step + 1
  const { epoch, batches } = stepBatches({ ...order, step: step - 1 })
  const learningRate = learningRates(config, training.steps)(step - 1)
  let found: StepResult
  try {
    const parts = { pipeline, trainables, batches, seed: config.seed, step, noiseAlpha: config.neftuneNoiseAlpha }
    const sums = await accumulateGradients({ ...parts, ...(cancelled === undefined ? {} : { cancelled }) })
    const loss = sums.lossSum / sums.labelTokens
    const gradNorm = gradientNorm(trainables.values()) / sums.labelTokens
    found = { ...sums, step, epoch, loss, learningRate, gradNorm }
    refuseDiverged(found, config)
  } catch (error) {
    for (const { gradient } of trainables.values()) gradient.fill(0)
    throw error
  }
  optimizer.step(learningRate, clipFactor(found.gradNorm, config.maxGradNorm) / found.labelTokens)
  state.step = step
  state.epoch = epoch
  state.lossTotal += found.loss
  state.sinceLog += found.loss
  state.tokens += found.tokens
  state.realTokens += found.realTokens
  state.labelTokens += found.labelTokens
  return found
}

function refuseDiverged({ step, loss, gradNorm }: StepResult, { learningRate }: TrainConfig): void {
  if (Number.isFinite(loss) && Number.isFinite(gradNorm)) return
  throw new LowrankError('diverged', `step ${step}: the loss is ${loss} and the gradient norm ${gradNorm}`, {
    hint: `Lower learningRate (now ${learningRate}) or set maxGradNorm and warmupSteps. The weights were not changed by this step.`,
  })
}

export interface TrainOptions {
  readonly valid: readonly Example[] | undefined
  /** Computed before anything else, unless the first step does anyway. */
  readonly trial?: Trial | undefined
  /** Writes a checkpoint of the run as it is now and returns its folder. */
  readonly saveCheckpoint: () => Promise<string>
  readonly cancelled: () => boolean
}

export interface TrainerResult {
  readonly steps: number
  /** Mean of all step losses. */
  readonly trainLoss: number
  /** Positions computed, those that are no padding, those that predict a label, and the share of padding, 0 to 1. */
  readonly tokens: number
  readonly realTokens: number
  readonly labelTokens: number
  readonly paddingShare: number
  readonly best: { readonly step: number; readonly loss: number } | undefined
}

/**
 * Trains until the last step, telling each. With `loadBestModelAtEnd` the weights end as they were at the lowest evaluation
 * loss. Checkpoints are written between steps only, so that they hold no half of a step. Cancelled, it saves one of the last whole
 * step and throws.
 */
export async function* train(training: Training, options: TrainOptions): AsyncGenerator<TrainEvent, TrainerResult> {
  const { config, pipeline, trainables, steps, state } = training
  const { cancelled } = options
  const validBatches = options.valid && evalBatches(options.valid, config.perDeviceEvalBatchSize, config)
  const evaluate = async function* (): AsyncGenerator<TrainEvent> {
    if (validBatches === undefined || state.evaluated === state.step || !isEvaluated(training)) return
    const start = performance.now()
    const result = await evaluateBatches({ pipeline, batches: validBatches, cancelled })
    const best = offer(training, result.loss)
    const { step, epoch } = state
    yield { type: 'eval', step, epoch, seconds: (performance.now() - start) / 1000, best, ...result }
  }
  try {
    yield* tryFirst(training, options)
    // Before the first step; or what a run left undone that was cancelled in it.
    yield* evaluate()
    const [begun, first] = [performance.now(), state.step]
    while (state.step < steps) {
      const start = performance.now()
      const readBefore = pipeline.bytesRead
      const { step, epoch, loss, learningRate, gradNorm, tokens, realTokens, labelTokens } = await trainStep(
        training,
        cancelled,
      )
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
      if (step % config.loggingSteps === 0) {
        yield { type: 'log', ...common, loss: state.sinceLog / (step - state.logged) }
        state.sinceLog = 0
        state.logged = step
      }
      yield* evaluate()
      if (isDue(training, config.saveStrategy, config.saveSteps)) {
        yield { type: 'save', step, path: await options.saveCheckpoint() }
      }
    }
  } catch (error) {
    if (!(error instanceof LowrankError && error.code === 'cancelled')) throw error
    // The weights are those of the last whole step: gradients or an evaluation were under way.
    const path = await options.saveCheckpoint()
    yield { type: 'save', step: state.step, path }
    const message = `cancelled after step ${state.step} of ${steps}; its weights are in ${path}`
    throw new LowrankError('cancelled', message, { hint: 'The same run with --resume goes on from there.' })
  }
  for (const [name, weights] of training.bestWeights) trainables.get(name)?.data.set(weights)
  const { tokens, realTokens, labelTokens, best } = state
  const counts = { tokens, realTokens, labelTokens, paddingShare: paddingShare(state) }
  return { steps, trainLoss: state.lossTotal / steps, ...counts, best }
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

/** Notes the evaluation loss after the step that was done last; whether it is the lowest so far. */
function offer({ config, state, trainables, bestWeights }: Training, loss: number): boolean {
  const { step, best } = state
  state.evaluated = step
  if (best !== undefined && loss >= best.loss) return false
  state.best = { step, loss }
  if (config.loadBestModelAtEnd) for (const [name, { data }] of trainables) bestWeights.set(name, data.slice())
  return true
}
