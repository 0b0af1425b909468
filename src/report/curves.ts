/** Points of a curve, as a page holds them; a gap is null. */
export interface Points {
  readonly x: readonly number[]
  readonly y: readonly (number | null)[]
}

/** Points of a curve at most: more than a screen has columns, few enough for a page of runs of any length. */
const MOST_POINTS = 2000

/**
 * A curve that looks the same with fewer points: of each stretch of steps the lowest and the highest value stay, so that no spike is
 * lost, and every gap. First and last stay too.
 */
export function thin(x: readonly number[], y: readonly number[], most = MOST_POINTS): Points {
  const picked = y.length <= most ? y.map((_, index) => index) : extremes(y, most)
  return { x: picked.map((index) => x[index]!), y: picked.map((index) => rounded(y[index]!)) }
}

function extremes(values: readonly number[], most: number): number[] {
  const picked = new Set([0, values.length - 1])
  const stretches = Math.max(1, Math.floor((most - 2) / 2))
  for (let stretch = 0; stretch < stretches; stretch++) {
    const from = Math.floor((stretch * values.length) / stretches)
    const to = Math.floor(((stretch + 1) * values.length) / stretches)
    let [low, high, gap]: (number | undefined)[] = []
    for (let index = from; index < to; index++) {
      const value = values[index]!
      if (Number.isNaN(value)) gap ??= index
      else {
        if (low === undefined || value < values[low]!) low = index
        if (high === undefined || value > values[high]!) high = index
      }
    }
    for (const index of [low, high, gap]) if (index !== undefined) picked.add(index)
  }
  return [...picked].sort((a, b) => a - b)
}

/** Six digits are finer than any screen. */
function rounded(value: number): number | null {
  return Number.isFinite(value) ? Number(value.toPrecision(6)) : null
}

/** Steps that a smoothed curve averages over: a fortieth of the run, so that runs of any length are shown alike. */
export function smoothingWindow(length: number): number {
  return Math.round(length / 40)
}

/**
 * Exponential moving average with the weight 2 / (window + 1), corrected for its start as TensorBoard does (Kingma and Ba 2015,
 * section 3). Gaps stay gaps.
 */
export function smooth(values: readonly number[], window: number): number[] {
  const decay = 1 - 2 / (window + 1)
  let [sum, weight] = [0, 0]
  return values.map((value) => {
    if (Number.isNaN(value)) return NaN
    sum = decay * sum + (1 - decay) * value
    weight = decay * weight + (1 - decay)
    return sum / weight
  })
}
