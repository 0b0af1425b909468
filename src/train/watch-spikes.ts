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
  /** Of the recent steps: their median, and the most a step like this one was expected to have. Not for `nan`. */
  readonly expected: { readonly median: number; readonly limit: number } | undefined
}

/** What is remembered of the recent steps, a place each, the oldest first. Plain JSON. */
export interface SpikeState {
  readonly losses: number[]
  readonly gradNorms: number[]
  readonly labelTokens: number[]
  /** Median gradient norm of the first steps, once there are enough. */
  firstGradNorm: number | undefined
}

/** Steps that make the recent range. */
const window = 64
/** Steps before anything but a NaN is judged. */
const warmup = 16
/** The optimizers square gradients in f32, whose largest number is 3.4e38. */
const overflow = 1e18

/**
 * What is wrong with a step, if anything is: its loss or gradient norm is far above those of the steps before. Their range is made of
 * median and median absolute deviation, which a few outliers do not move (Hampel 1974), and of the upper tenth, which batches of
 * few label tokens make long. Changes nothing: `remember` the step once it is done.
 */
export function findSpike(state: SpikeState, { loss, gradNorm, labelTokens }: StepValues): Spike | undefined {
  if (!Number.isFinite(loss)) return { kind: 'nan', value: loss, expected: undefined }
  if (!(gradNorm < overflow)) return { kind: 'nan', value: gradNorm, expected: undefined }
  if (state.losses.length < warmup) return undefined
  // A step of fewer label tokens than usual, as at the end of an epoch, strays further: by the root of how many fewer.
  const stray = Math.sqrt(Math.max(1, quantile(state.labelTokens, 0.5) / labelTokens))
  const losses = rangeOf(state.losses, lossRange)
  const lossLimit = losses.median + losses.spread * stray
  if (loss > lossLimit) return { kind: 'loss', value: loss, expected: { median: losses.median, limit: lossLimit } }
  // Norms vary by factors, so it is their logarithms that have a range.
  const logarithms = state.gradNorms.map((norm) => Math.log(Math.max(norm, 1e-30)))
  const norms = rangeOf(logarithms, gradNormRange)
  const median = Math.exp(norms.median)
  const normLimit = Math.max(Math.exp(norms.median + norms.spread), state.firstGradNorm ?? 0) * stray
  if (gradNorm > normLimit) return { kind: 'gradNorm', value: gradNorm, expected: { median, limit: normLimit } }
  return undefined
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

interface RangeOptions {
  /** Multiples of the standard deviation that the median absolute deviation stands for. */
  readonly deviations: number
  /** Multiples of the distance from the median to the upper tenth. */
  readonly tails: number
  /** Least spread. */
  readonly floor: (median: number) => number
}

const lossRange: RangeOptions = { deviations: 8, tails: 3, floor: (median) => Math.max(0.5, 0.25 * median) }
const gradNormRange: RangeOptions = { deviations: 8, tails: 3, floor: () => Math.log(4) }

/** The middle of the values and how far above it a further one may lie. */
function rangeOf(
  values: readonly number[],
  { deviations, tails, floor }: RangeOptions,
): { readonly median: number; readonly spread: number } {
  const median = quantile(values, 0.5)
  const deviation =
    1.4826 *
    quantile(
      values.map((value) => Math.abs(value - median)),
      0.5,
    )
  const tail = quantile(values, 0.9) - median
  return { median, spread: Math.max(deviations * deviation, tails * tail, floor(median)) }
}

/** The value below which a share of the values lies. */
function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor(share * (sorted.length - 1))] ?? NaN
}
