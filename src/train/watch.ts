import type { Quantization, TrainConfig } from '../config.ts'
import { LowrankError } from '../util/errors.ts'
import type { TrainEvent } from './events.ts'
import {
  EarlyStopping,
  OverfittingNotice,
  type EarlyStoppingState,
  type OverfittingState,
} from './watch-evaluations.ts'
import { SpikeDetector, type Spike, type SpikeState, type StepValues } from './watch-spikes.ts'

type EventOf<T extends TrainEvent['type']> = Extract<TrainEvent, { type: T }>

/** A step whose gradients are known and not yet applied. */
export interface WatchedStep extends StepValues {
  readonly step: number
  readonly epoch: number
  /** Where its examples come from: lines of the training file. */
  readonly lines: readonly number[]
}

/** What is to become of a step, and what is told of it. */
export interface Verdict {
  readonly action: 'apply' | 'skip' | 'stop'
  readonly spike: EventOf<'spike'> | undefined
}

/** What an evaluation means for the run. */
export interface EvaluationVerdict {
  readonly overfitting: EventOf<'overfitting'> | undefined
  /** Why the run ends here, in words. */
  readonly stop: string | undefined
}

/** Everything the watch remembers, as plain JSON: a run that goes on with it is watched as if it had never stopped. */
export interface WatchState {
  readonly spikes: SpikeState
  /** Steps in a row, up to the last, that were spikes. */
  readonly inRow: number
  /** Of the steps since the last evaluation whose update was applied. */
  readonly trainLossSum: number
  readonly trainSteps: number
  readonly earlyStopping: EarlyStoppingState | undefined
  readonly overfitting: OverfittingState
}

export type WatchConfig = Pick<
  TrainConfig,
  | 'onSpike'
  | 'earlyStoppingPatience'
  | 'earlyStoppingThreshold'
  | 'loadBestModelAtEnd'
  | 'learningRate'
  | 'maxGradNorm'
  | 'loraDropout'
  | 'method'
  | 'train'
>

/** Steps in a row that may be left out. More are no accident of the data. */
export const mostSkipped = 5

/** Follows the figures of a run: says what is wrong with them, and what becomes of the step or the run. */
export class Watch {
  readonly #config: WatchConfig
  readonly #base: Quantization | undefined
  readonly #spikes = new SpikeDetector()
  readonly #overfitting = new OverfittingNotice()
  readonly #earlyStopping: EarlyStopping | undefined
  #inRow = 0
  #trainLossSum = 0
  #trainSteps = 0

  constructor({ config, base }: { readonly config: WatchConfig; readonly base: Quantization | undefined }) {
    const { earlyStoppingPatience: patience, earlyStoppingThreshold: threshold } = config
    this.#config = config
    this.#base = base
    if (patience !== undefined) this.#earlyStopping = new EarlyStopping({ patience, threshold })
  }

  get state(): WatchState {
    return {
      spikes: this.#spikes.state,
      inRow: this.#inRow,
      trainLossSum: this.#trainLossSum,
      trainSteps: this.#trainSteps,
      earlyStopping: this.#earlyStopping?.state,
      overfitting: this.#overfitting.state,
    }
  }

  restore(state: WatchState): void {
    this.#spikes.restore(state.spikes)
    this.#inRow = state.inRow
    this.#trainLossSum = state.trainLossSum
    this.#trainSteps = state.trainSteps
    if (state.earlyStopping !== undefined) this.#earlyStopping?.restore(state.earlyStopping)
    this.#overfitting.restore(state.overfitting)
  }

  /**
   * Judges a step before its update. `stop` leaves the watch as it was, since the step is then not done. What is no number
   * is never applied.
   */
  judge(step: WatchedStep): Verdict {
    const spike = this.#spikes.judge(step)
    const action = this.#actionFor(spike)
    // Told once where the figures stay high, but whenever something was done about it.
    const told = spike !== undefined && (action !== 'apply' || this.#inRow === 0)
    if (action !== 'stop') {
      this.#spikes.remember(step)
      this.#inRow = spike === undefined ? 0 : this.#inRow + 1
    }
    if (action === 'apply') {
      this.#trainLossSum += step.loss
      this.#trainSteps++
    }
    return { action, spike: told ? this.#spikeEvent(step, spike, action) : undefined }
  }

  /** Takes in an evaluation of the step just done. */
  evaluated({
    step,
    epoch,
    loss,
  }: {
    readonly step: number
    readonly epoch: number
    readonly loss: number
  }): EvaluationVerdict {
    const trainLoss = this.#trainLossSum / this.#trainSteps
    ;[this.#trainLossSum, this.#trainSteps] = [0, 0]
    const now = { step, epoch, evalLoss: loss, trainLoss }
    // Before the first step there is no training loss to compare with.
    const passed = Number.isFinite(trainLoss) ? this.#overfitting.offer(now) : undefined
    const stop = this.#earlyStopping?.offer(loss) === true ? this.#earlyStopReason() : undefined
    return {
      overfitting: passed && { type: 'overfitting', ...now, ...passed, remedy: this.#overfittingRemedy(passed.best) },
      stop,
    }
  }

  #actionFor(spike: Spike | undefined): Verdict['action'] {
    const { onSpike } = this.#config
    if (spike === undefined) return 'apply'
    if (onSpike === 'skip') return this.#inRow < mostSkipped ? 'skip' : 'stop'
    return onSpike === 'stop' || spike.kind === 'nan' ? 'stop' : 'apply'
  }

  #spikeEvent(step: WatchedStep, spike: Spike, action: Verdict['action']): EventOf<'spike'> {
    const { step: index, epoch, loss, gradNorm } = step
    const lines = step.lines.toSorted((a, b) => a - b)
    const remedy = this.#spikeRemedy(spike)
    return { type: 'spike', step: index, epoch, ...spike, loss, gradNorm, lines, action, remedy }
  }

  #spikeRemedy(spike: Spike): string {
    const { onSpike, learningRate, maxGradNorm, train } = this.#config
    const fp4 = this.#base?.kind === '4bit' && this.#base.quantType === 'fp4'
    const clip = maxGradNorm > 0 ? `maxGradNorm (now ${maxGradNorm})` : 'maxGradNorm (now 0, that is, no clipping)'
    return [
      ...(fp4 ? ['The base is in fp4, which rounds more coarsely than nf4: try bnb4bitQuantType nf4.'] : []),
      `Are these lines of ${train} as they should be? If so, ` +
        (spike.kind === 'nan'
          ? `lower learningRate (now ${learningRate}) or ${maxGradNorm > 0 ? `${clip}, or set warmupSteps` : `set maxGradNorm and warmupSteps`}.`
          : `a lower learningRate (now ${learningRate}), a longer warmup or a smaller ${clip} keeps the run steady.`),
      ...(onSpike === 'skip' ? [] : ['With onSpike skip, steps like this are left out.']),
    ].join(' ')
  }

  #overfittingRemedy(best: { readonly step: number; readonly epoch: number }): string {
    const { method, loraDropout, loadBestModelAtEnd } = this.#config
    return [
      `Fewer epochs: the best evaluation was after ${best.epoch.toFixed(2)} (step ${best.step}).`,
      loadBestModelAtEnd ? 'Its weights are kept and saved at the end.' : 'loadBestModelAtEnd keeps its weights.',
      ...(this.#earlyStopping === undefined ? ['earlyStoppingPatience ends such a run.'] : []),
      method === 'full' ? 'More data helps, or weightDecay.' : `More data helps, or loraDropout (now ${loraDropout}).`,
    ].join(' ')
  }

  #earlyStopReason(): string {
    const { earlyStoppingPatience: patience, earlyStoppingThreshold: threshold, loadBestModelAtEnd } = this.#config
    const fall =
      threshold > 0 ? `fell by more than ${threshold} below the lowest before` : 'fell below the lowest before'
    return (
      `in ${patience} ${patience === 1 ? 'evaluation' : 'evaluations in a row'} the loss never ${fall}` +
      (loadBestModelAtEnd ? '' : '; the weights are those of the last step, since loadBestModelAtEnd is not set')
    )
  }
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
