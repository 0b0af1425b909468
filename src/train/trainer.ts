import type { TrainConfig } from '../config.ts'
import { LowrankError } from '../util/errors.ts'
import type { Pipeline } from '../engine/pipeline.ts'
import { evalBatches, stepBatches, stepsPerEpoch, type TrainingOrder } from '../text/batches.ts'
import type { Example } from '../text/examples.ts'
import { evaluateBatches } from './evaluate.ts'
import type { TrainEvent } from './events.ts'
import { clipFactor, gradientNorm, makeOptimizer, type Trainable } from './optimizer.ts'
import { scheduleFactor } from './schedule.ts'
import { accumulateGradients } from './step.ts'

export interface TrainerOptions {
  readonly config: TrainConfig
  readonly pipeline: Pipeline
  readonly trainables: ReadonlyMap<string, Trainable>
  readonly train: readonly Example[]
  readonly valid: readonly Example[] | undefined
  /** Writes a checkpoint of the trainables as they are now and returns its folder. */
  readonly saveCheckpoint: (step: number) => Promise<string>
  readonly cancelled: () => boolean
}

export interface TrainerResult {
  readonly steps: number
  /** Mean of all step losses. */
  readonly trainLoss: number
  readonly best: { readonly step: number; readonly loss: number } | undefined
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
  return { examples, seed, batchSize, accumulation } as const
}

/**
 * Trains until the last step, telling each. With `loadBestModelAtEnd` the trainables end as they were at the lowest
 * evaluation loss. Cancelled, it saves a checkpoint of the last whole step and throws.
 */
export async function* train(options: TrainerOptions): AsyncGenerator<TrainEvent, TrainerResult> {
  const { config, pipeline, trainables, cancelled } = options
  const order = orderOf(config, options.train)
  const steps = totalSteps(config, options.train)
  const perEpoch = stepsPerEpoch(order)
  const warmupSteps = config.warmupSteps > 0 ? config.warmupSteps : Math.ceil(config.warmupRatio * steps)
  const optimizer = makeOptimizer(trainables.values(), config)
  const validBatches = options.valid && evalBatches(options.valid, config.perDeviceEvalBatchSize)
  const best = new BestWeights(trainables, config.loadBestModelAtEnd)
  const evaluate = async function* (step: number, epoch: number): AsyncGenerator<TrainEvent> {
    if (validBatches === undefined) return
    const start = performance.now()
    const result = await evaluateBatches({ pipeline, batches: validBatches, cancelled })
    const isBest = best.offer(step, result.loss)
    yield { type: 'eval', step, epoch, seconds: (performance.now() - start) / 1000, best: isBest, ...result }
  }
  const due = (strategy: 'no' | 'steps' | 'epoch', every: number | undefined, step: number): boolean =>
    strategy === 'steps' ? step % (every ?? Infinity) === 0 : strategy === 'epoch' && step % perEpoch === 0

  const begun = performance.now()
  let [lossTotal, sinceLog, logged, done] = [0, 0, 0, 0]
  try {
    if (config.evalOnStart) yield* evaluate(0, 0)
    for (let step = 1; step <= steps; step++) {
      const start = performance.now()
      const readBefore = pipeline.bytesRead
      const { epoch, batches } = stepBatches({ ...order, step: step - 1 })
      const sums = await accumulateGradients({ pipeline, trainables, batches, seed: config.seed, step, cancelled })
      const loss = sums.lossSum / sums.labelTokens
      const gradNorm = gradientNorm(trainables.values()) / sums.labelTokens
      const learningRate =
        config.learningRate * scheduleFactor(config.lrSchedulerType, { step: step - 1, steps, warmupSteps })
      if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) {
        throw new LowrankError('diverged', `step ${step}: the loss is ${loss} and the gradient norm ${gradNorm}`, {
          hint: `Lower learningRate (now ${config.learningRate}) or set maxGradNorm and warmupSteps. The weights were not changed by this step.`,
        })
      }
      optimizer.step(learningRate, clipFactor(gradNorm, config.maxGradNorm) / sums.labelTokens)
      done = step

      const seconds = (performance.now() - start) / 1000
      const secondsLeft = ((performance.now() - begun) / 1000 / step) * (steps - step)
      const { tokens, labelTokens } = sums
      const memory = process.memoryUsage.rss()
      const common = { step, epoch, loss, learningRate, gradNorm }
      yield {
        type: 'step',
        ...common,
        steps,
        tokens,
        labelTokens,
        seconds,
        tokensPerSecond: tokens / seconds,
        bytesRead: pipeline.bytesRead - readBefore,
        memory,
        secondsLeft,
      }
      lossTotal += loss
      sinceLog += loss
      if (step % config.loggingSteps === 0) {
        yield { type: 'log', ...common, loss: sinceLog / (step - logged) }
        sinceLog = 0
        logged = step
      }
      // The last step is always evaluated, so that a run ends with a figure for what it made.
      const evaluates =
        config.evalStrategy !== 'no' && (due(config.evalStrategy, config.evalSteps, step) || step === steps)
      if (evaluates) yield* evaluate(step, epoch)
      if (due(config.saveStrategy, config.saveSteps, step)) {
        yield { type: 'save', step, path: await options.saveCheckpoint(step) }
      }
    }
  } catch (error) {
    if (!(error instanceof LowrankError && error.code === 'cancelled')) throw error
    // The weights are those of the last whole step: gradients or an evaluation were under way.
    const path = await options.saveCheckpoint(done)
    yield { type: 'save', step: done, path }
    throw new LowrankError('cancelled', `cancelled after step ${done} of ${steps}; its weights are in ${path}`)
  }
  best.restore()
  return { steps, trainLoss: lossTotal / steps, best: best.found }
}

/** The weights with the lowest evaluation loss, copied when `keep` is set. */
class BestWeights {
  readonly #trainables: ReadonlyMap<string, Trainable>
  readonly #keep: boolean
  #copies: ReadonlyMap<string, Float32Array> | undefined
  #found: { readonly step: number; readonly loss: number } | undefined

  constructor(trainables: ReadonlyMap<string, Trainable>, keep: boolean) {
    this.#trainables = trainables
    this.#keep = keep
  }

  get found(): { readonly step: number; readonly loss: number } | undefined {
    return this.#found
  }

  /** Whether this is the lowest loss so far. */
  offer(step: number, loss: number): boolean {
    if (this.#found !== undefined && loss >= this.#found.loss) return false
    this.#found = { step, loss }
    if (this.#keep) this.#copies = new Map([...this.#trainables].map(([name, { data }]) => [name, data.slice()]))
    return true
  }

  restore(): void {
    for (const [name, copy] of this.#copies ?? []) this.#trainables.get(name)?.data.set(copy)
  }
}
