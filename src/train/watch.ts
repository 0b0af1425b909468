import { z } from 'zod'
import type { Quantization } from '../config/index.ts'
import type { WatchConfig } from './config.ts'
import { LowrankError } from '../util/errors.ts'
import { criterionOf } from './criterion.ts'
import type { EventOf } from './events.ts'
import {
  earlyStoppingSchema,
  hasStalled,
  overfittingSchema,
  overfittingSince,
  type Evaluated,
} from './watch-evaluations.ts'
import { findSpike, remember, spikeSchema, type Spike, type StepValues } from './watch-spikes.ts'

/** A step whose gradients are known and not yet applied. */
interface WatchedStep extends StepValues {
  readonly step: number
  readonly epoch: number
  /** Where its examples come from: lines of the training file. */
  readonly lines: readonly number[]
}

/** What is to become of a step, and what is reported of it. */
export interface Verdict {
  readonly action: 'apply' | 'skip' | 'stop'
  readonly spike: EventOf<'spike'> | undefined
}

/** What an evaluation means for the run. */
interface EvaluationVerdict {
  readonly overfitting: EventOf<'overfitting'> | undefined
  /** Why the run ends here, in words. */
  readonly stop: string | undefined
}

/**
 * Everything that watching a run remembers. It is part of the state of the run: one that goes on from a checkpoint is watched as if it had
 * never stopped.
 */
export const watchSchema = z.object({
  spikes: spikeSchema,
  /** Steps in a row, up to the last, that were spikes; and steps since the last that was one, at most `calmSteps`. */
  inRow: z.int().min(0),
  calm: z.int().min(0),
  /** Of the steps since the last evaluation whose update was applied. */
  trainLossSum: z.number(),
  trainSteps: z.int().min(0),
  earlyStopping: earlyStoppingSchema,
  overfitting: overfittingSchema,
})

type WatchState = z.output<typeof watchSchema>

/** Before the first step. */
export function startWatch(): WatchState {
  return {
    spikes: { losses: [], gradNorms: [], labelTokens: [], firstGradNorm: undefined },
    inRow: 0,
    calm: calmSteps,
    trainLossSum: 0,
    trainSteps: 0,
    earlyStopping: { lowest: undefined, waited: 0 },
    overfitting: { best: undefined, last: undefined, rises: 0, told: false },
  }
}

/** Steps without a spike after which a rise of the loss is reported again. */
const calmSteps = 16

/** Steps in a row that may be left out. More are no accident of the data. */
const mostSkipped = 5

/** What a run is watched by. */
export interface Watch {
  readonly config: WatchConfig
  /** How the base is quantized. */
  readonly base: Quantization | undefined
  readonly state: WatchState
}

/**
 * Judges a step before its update. `stop` leaves the state as it was, since the step is then not done. What is no number is
 * never applied.
 */
export function judgeStep(watch: Watch, step: WatchedStep): Verdict {
  const { state } = watch
  const found = findSpike(state.spikes, step)
  const action = found === undefined ? 'apply' : actionFor(found, watch)
  // Reported once where the figures stay high, but whenever something was done about it.
  const isTold = action !== 'apply' || (found?.rise === true ? state.calm === calmSteps : state.inRow === 0)
  if (action !== 'stop') {
    remember(state.spikes, step)
    state.inRow = found === undefined ? 0 : state.inRow + 1
    state.calm = found === undefined ? Math.min(calmSteps, state.calm + 1) : 0
  }
  if (action === 'apply') {
    state.trainLossSum += step.loss
    state.trainSteps++
  }
  if (found === undefined || !isTold) return { action, spike: undefined }
  const { step: index, epoch, loss, gradNorm } = step
  const { kind, value, expected } = found
  const lines = step.lines.toSorted((a, b) => a - b)
  const facts = { kind, value, expected, loss, gradNorm, lines, action, remedy: spikeRemedy(watch, step) }
  return { action, spike: { type: 'spike', step: index, epoch, ...facts } }
}

/** Takes in an evaluation of the step just done; `cost`: what the lowest of is the best, where that is not the loss. */
export function judgeEvaluation(
  watch: Watch,
  {
    step,
    epoch,
    loss,
    cost = loss,
  }: { readonly step: number; readonly epoch: number; readonly loss: number; readonly cost?: number },
): EvaluationVerdict {
  const { config, state } = watch
  const { earlyStoppingPatience: patience, earlyStoppingThreshold: threshold } = config
  const trainLoss = state.trainLossSum / state.trainSteps
  state.trainLossSum = 0
  state.trainSteps = 0
  const now = { step, epoch, evalLoss: loss, trainLoss }
  // Before the first step there is no training loss to compare with.
  const best =
    Number.isFinite(trainLoss) && Number.isFinite(loss) ? overfittingSince(state.overfitting, now) : undefined
  const stalled = patience !== undefined && hasStalled(state.earlyStopping, cost, { patience, threshold })
  return {
    overfitting: best && { type: 'overfitting', ...now, best, remedy: overfittingRemedy(best, config) },
    stop: stalled ? earlyStopReason(patience, config) : undefined,
  }
}

function actionFor(spike: Spike, { config: { onSpike }, state }: Watch): Verdict['action'] {
  if (onSpike === 'skip') return state.inRow < mostSkipped ? 'skip' : 'stop'
  return onSpike === 'stop' || spike.kind === 'nan' ? 'stop' : 'apply'
}

function spikeRemedy({ config, base }: Watch, { step }: WatchedStep): string {
  const { onSpike, learningRate, maxGradNorm, train, outputDir } = config
  const clip = maxGradNorm > 0 ? `lower maxGradNorm (now ${maxGradNorm})` : 'set maxGradNorm'
  return [
    ...(base?.kind === '4bit' && base.quantType === 'fp4'
      ? ['The base is in fp4, which rounds more coarsely than nf4: try bnb4bitQuantType nf4.']
      : []),
    `Are these lines of ${train} as they should be (lowrank replay ${outputDir} --step ${step} reports the loss of each)? If so, lower learningRate (now ${learningRate}), set warmupSteps, or ${clip}.`,
    onSpike === 'skip'
      ? `Up to ${mostSkipped} steps like this in a row are skipped.`
      : 'With onSpike skip, steps like this are skipped.',
  ].join(' ')
}

function overfittingRemedy(best: Evaluated, config: WatchConfig): string {
  const { method, loraDropout, loadBestModelAtEnd, earlyStoppingPatience } = config
  return [
    `Train for fewer epochs: the best evaluation was after ${best.epoch.toFixed(2)} (step ${best.step}).`,
    loadBestModelAtEnd ? 'Its weights are kept, and saved at the end.' : 'loadBestModelAtEnd keeps its weights.',
    ...(earlyStoppingPatience === undefined ? ['earlyStoppingPatience ends such a run.'] : []),
    method === 'full' ? 'More data helps, or weightDecay.' : `More data helps, or loraDropout (now ${loraDropout}).`,
  ].join(' ')
}

function earlyStopReason(patience: number, config: WatchConfig): string {
  const { earlyStoppingThreshold: threshold, loadBestModelAtEnd } = config
  const { what, greaterIsBetter } = criterionOf(config)
  const [move, best] = greaterIsBetter ? ['rise', 'above the highest'] : ['fall', 'below the lowest']
  return (
    `${what} did not ${move} ${threshold > 0 ? `by more than ${threshold} ` : ''}${best} before` +
    (patience === 1 ? '' : `, ${patience} times in a row`) +
    (loadBestModelAtEnd ? '' : '; the weights are those of the last step, since loadBestModelAtEnd is not set')
  )
}

/** The error in which a run ends that a spike stops. */
export function spikeError({
  step,
  kind,
  value,
  loss,
  gradNorm,
  expected,
  lines,
  remedy,
}: EventOf<'spike'>): LowrankError {
  const found =
    kind === 'nan'
      ? `the loss is ${loss} and the gradient norm ${gradNorm}`
      : `the ${kind === 'loss' ? 'loss' : 'gradient norm'} is ${value.toPrecision(4)}, where at most ${expected?.limit.toPrecision(4)} was expected`
  const where = `lines ${lines.slice(0, 20).join(', ')}${lines.length > 20 ? ` and ${lines.length - 20} more` : ''}`
  return new LowrankError('diverged', `step ${step}: ${found} (${where} of the training data)`, {
    hint: `${remedy} The weights were not changed by this step.`,
  })
}
