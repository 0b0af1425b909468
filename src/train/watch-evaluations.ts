/** The lowest evaluation loss so far, and how many evaluations have passed without one that counts as lower. Plain JSON. */
export interface EarlyStoppingState {
  readonly lowest: number | undefined
  readonly waited: number
}

/**
 * Ends a run whose evaluation loss no longer falls, as transformers' `EarlyStoppingCallback`: the loss has to fall by more than
 * `threshold` below the lowest so far to start the count of `patience` evaluations anew.
 */
export class EarlyStopping {
  readonly #patience: number
  readonly #threshold: number
  #state: EarlyStoppingState = { lowest: undefined, waited: 0 }

  constructor({ patience, threshold }: { readonly patience: number; readonly threshold: number }) {
    this.#patience = patience
    this.#threshold = threshold
  }

  get state(): EarlyStoppingState {
    return this.#state
  }

  restore(state: EarlyStoppingState): void {
    this.#state = state
  }

  /** Whether the run is to end with this evaluation. A loss that is no number is no improvement. */
  offer(loss: number): boolean {
    const { lowest = Infinity, waited } = this.#state
    this.#state = {
      lowest: loss < lowest ? loss : this.#state.lowest,
      waited: lowest - loss > this.#threshold ? 0 : waited + 1,
    }
    return this.#state.waited >= this.#patience
  }
}

/** An evaluation beside the training loss that led to it. */
export interface Evaluated {
  readonly step: number
  /** Epochs done. */
  readonly epoch: number
  readonly evalLoss: number
  /** Mean of the step losses since the evaluation before. */
  readonly trainLoss: number
}

/** What the notice remembers. Plain JSON. */
export interface OverfittingState {
  readonly best: Evaluated | undefined
  /** Evaluations in a row above the best, each higher than the one before. */
  readonly rises: number
  readonly last: number | undefined
  readonly told: boolean
}

/** Evaluations that must rise in a row, and how far above the best the last has to be, as a share of it. */
const risesNeeded = 2
const margin = 0.02

/** Notices once that the evaluation loss rises from its lowest while the training loss falls. */
export class OverfittingNotice {
  #state: OverfittingState = { best: undefined, rises: 0, last: undefined, told: false }

  get state(): OverfittingState {
    return this.#state
  }

  restore(state: OverfittingState): void {
    this.#state = state
  }

  /** The best evaluation, if this one shows that the run has gone past it. */
  offer(now: Evaluated): { readonly best: Evaluated } | undefined {
    const { best, rises, last = Infinity, told } = this.#state
    if (best === undefined || now.evalLoss < best.evalLoss) {
      this.#state = { best: now, rises: 0, last: now.evalLoss, told }
      return undefined
    }
    const counted = now.evalLoss > last ? rises + 1 : 0
    const parted =
      counted >= risesNeeded && now.evalLoss > (1 + margin) * best.evalLoss && now.trainLoss < best.trainLoss
    this.#state = { best, rises: counted, last: now.evalLoss, told: told || parted }
    return parted && !told ? { best } : undefined
  }
}
