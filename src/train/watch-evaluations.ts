import { z } from 'zod'

const count = z.int().min(0)

/** What early stopping remembers. */
export const earlyStoppingSchema = z.object({
  /** The lowest cost of an evaluation so far: its loss, or what another criterion says (`criterion.ts`). */
  lowest: z.number().optional(),
  /** Evaluations since the last that counted as lower. */
  waited: count,
})

export type EarlyStoppingState = z.output<typeof earlyStoppingSchema>

/**
 * Takes in the cost of an evaluation; whether it is the last of `patience` in a row without improvement. As in transformers'
 * `EarlyStoppingCallback` it has to fall by more than `threshold` below the lowest so far to count. What is no number is no
 * improvement.
 */
export function hasStalled(
  state: EarlyStoppingState,
  cost: number,
  { patience, threshold }: { readonly patience: number; readonly threshold: number },
): boolean {
  const lowest = state.lowest ?? Infinity
  state.waited = lowest - cost > threshold ? 0 : state.waited + 1
  if (cost < lowest) state.lowest = cost
  return state.waited >= patience
}

const evaluated = z.object({
  step: z.int(),
  /** Epochs done. */
  epoch: z.number(),
  evalLoss: z.number(),
  /** Mean of the step losses since the evaluation before. */
  trainLoss: z.number(),
})

/** An evaluation beside the training loss that led to it. */
export type Evaluated = Readonly<z.output<typeof evaluated>>

/** What the notice of overfitting remembers. */
export const overfittingSchema = z.object({
  /** Where the evaluation loss was lowest. */
  best: evaluated.readonly().optional(),
  /** The last evaluation loss, and how many in a row, up to it, were each higher than the one before. */
  last: z.number().optional(),
  rises: count,
  /** Whether it was reported. */
  told: z.boolean(),
})

export type OverfittingState = z.output<typeof overfittingSchema>

/** Evaluations that must rise in a row, and how far above the lowest the last has to be, as a share of it. */
const risesNeeded = 2
const margin = 0.02

/** The best evaluation, if the one taken in shows that the run has gone past it: the evaluation loss rises, the training loss falls. */
export function overfittingSince(state: OverfittingState, now: Evaluated): Evaluated | undefined {
  const { best, last = Infinity } = state
  state.rises = now.evalLoss > last ? state.rises + 1 : 0
  state.last = now.evalLoss
  if (best === undefined || now.evalLoss < best.evalLoss) {
    state.best = now
    return undefined
  }
  const parted = now.evalLoss > (1 + margin) * best.evalLoss && now.trainLoss < best.trainLoss
  if (state.told || !parted || state.rises < risesNeeded) return undefined
  state.told = true
  return best
}
