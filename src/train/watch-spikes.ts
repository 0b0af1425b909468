import { z } from 'zod'

/** What a step was found to be, before its update. */
export interface StepValues {
  /** Mean over the label tokens. */
  readonly loss: number
  /** Before clipping. */
  readonly gradNorm: number
  readonly labelTokens: number
}

/** A value far outside the range of the steps before it. */
export interface Spike {
  /** `nan`: loss or gradient is no number that fits f32. */
  readonly kind: 'loss' | 'gradNorm' | 'nan'
  readonly value: number
  /** What the steps before were at, and the most a step like this one was expected to have. Not for `nan`. */
  readonly expected: { readonly median: number; readonly limit: number } | undefined
  /** Whether no single step sticks out, but the loss has risen over several. */
  readonly rise?: true
}

const numbers = z.array(z.number())

/** What is remembered of the recent steps, a place each, the oldest first. */
export const spikeSchema = z.object({
  losses: numbers,
  gradNorms: numbers,
  labelTokens: numbers,
  /** Median gradient norm of the first steps, once there are enough. */
  firstGradNorm: z.number().optional(),
})

export type SpikeState = z.output<typeof spikeSchema>

/*
 * The constants were chosen on runs of the model of examples/quickstart: 9 that learn (LoRA, QLoRA, full; 1 to 8 examples a step; rates of 1e-4
 * to 3e-3; 100 to 300 steps; 40 epochs of 33 examples; examples with one or two label tokens, where losses jump between 0.5 and 10)
 * and one whose rate rises to 0.05 in 80 steps. No run that learns has an alarm; with 3 tails instead of 4, or a rise of 3 deviations in
 * place of 4, one of them has. The rate that is too high is reported at step 51, when the loss has gone from 2 to 7. With a range around
 * the median of all 64 steps, instead of the last 8, a loss that jumps from 2.1 to 4.3 after 39 steps of learning is missed.
 */

/** Steps that make the recent range. */
const window = 64
/** Steps before anything but a NaN is judged. */
const warmup = 16
/** The level of a run is the median of so many steps. */
const levelSteps = 8
/** The optimizers square gradients in f32, whose largest number is 3.4e38. */
const overflow = 1e18

/**
 * What is wrong with a step, if anything is. Changes nothing: `remember` the step once it is done.
 *
 * A step is compared with the level of the last few. How far steps stray from the level before them is measured by median and median
 * absolute deviation, which a few outliers do not move (Hampel 1974), and by the upper tenth, which batches of few label tokens make
 * long. A loss that rises slowly has no step that sticks out; there it is the level that is compared, with the lowest of the window.
 */
export function findSpike(state: SpikeState, { loss, gradNorm, labelTokens }: StepValues): Spike | undefined {
  if (!Number.isFinite(loss)) return { kind: 'nan', value: loss, expected: undefined }
  if (!(gradNorm < overflow)) return { kind: 'nan', value: gradNorm, expected: undefined }
  if (state.losses.length < warmup) return undefined
  // A step of fewer label tokens than usual, as at the end of an epoch, strays further: by the root of how many fewer.
  const stray = Math.sqrt(Math.max(1, quantile(state.labelTokens, 0.5) / labelTokens))
  const losses = rangeOf(state.losses)
  const lossLimit = losses.level + Math.max(losses.stray, 0.5, 0.25 * losses.level) * stray
  if (loss > lossLimit) return { kind: 'loss', value: loss, expected: { median: losses.level, limit: lossLimit } }
  const levels = levelsOf([...state.losses, loss])
  const lowest = Math.min(...levels)
  const highest = lowest + Math.max(4 * losses.deviation, 1, 0.5 * lowest)
  if (Math.min(loss, levels.at(-1)!) > highest) {
    return { kind: 'loss', value: loss, expected: { median: lowest, limit: highest }, rise: true }
  }
  // Norms vary by factors, so it is their logarithms that have a range. They are small where all was learned: a norm that is usual for
  // the first steps is no spike later.
  const norms = rangeOf(state.gradNorms.map((norm) => Math.log(Math.max(norm, 1e-30))))
  const usual = Math.exp(norms.level + Math.max(norms.stray, Math.log(4)))
  const normLimit = Math.max(usual, state.firstGradNorm ?? 0) * stray
  if (gradNorm <= normLimit) return undefined
  return { kind: 'gradNorm', value: gradNorm, expected: { median: Math.exp(norms.level), limit: normLimit } }
}

/** Adds a step to the recent range, unless it has no number. Spikes too: what stays high becomes what is expected. */
export function remember(state: SpikeState, { loss, gradNorm, labelTokens }: StepValues): void {
  if (!Number.isFinite(loss) || !(gradNorm < overflow)) return
  const { losses, gradNorms } = state
  for (const [values, value] of [
    [losses, loss],
    [gradNorms, gradNorm],
    [state.labelTokens, labelTokens],
  ] as const) {
    values.push(value)
    if (values.length > window) values.shift()
  }
  if (losses.length === warmup) state.firstGradNorm ??= quantile(gradNorms, 0.5)
}

/** Where the values are at, the standard deviation of values from the level before them, and how far above it a further one may lie. */
function rangeOf(values: readonly number[]): {
  readonly level: number
  readonly deviation: number
  readonly stray: number
} {
  const levels = levelsOf(values)
  const strays = values.slice(levelSteps).map((value, index) => value - levels[index]!)
  const median = quantile(strays, 0.5)
  // Of normally distributed values.
  const deviation =
    1.4826 *
    quantile(
      strays.map((one) => Math.abs(one - median)),
      0.5,
    )
  const tail = quantile(strays, 0.9) - median
  return { level: levels.at(-1)!, deviation, stray: Math.max(0, median) + Math.max(6 * deviation, 4 * tail) }
}

/** The median of each `levelSteps` values in a row. */
function levelsOf(values: readonly number[]): number[] {
  return values.slice(levelSteps - 1).map((_, start) => quantile(values.slice(start, start + levelSteps), 0.5))
}

/** The value below which a share of the values lies. */
function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor(share * (sorted.length - 1))] ?? NaN
}
