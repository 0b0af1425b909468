/** Whether two results differ by more than chance. */
export interface Difference {
  /** Mean evaluation loss of the one less that of the other, nats a label token. */
  readonly loss: number
  /** Beyond which a difference is unlikely to be chance: half the width of its 95 % interval. */
  readonly noise: number
  /** What varies in it: `seeds` trained with, or `examples` evaluated on, where there is one seed: then the noise of training is not known. */
  readonly over: 'seeds' | 'examples'
}

/** Result of a seed: its evaluation loss, and sums of losses with numbers of label tokens for each validation example. */
export interface SeedResult {
  readonly seed: number
  readonly evalLoss: number
  readonly exampleLosses?: readonly (readonly [number, number])[] | undefined
}

/** 97.5 % quantiles of Student's t by degrees of freedom, from 1. */
const student = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228]
const normal = 1.96

/**
 * What the one is worse than the other, paired: by seed where there are several, else by validation example, as the ratio of sums over
 * examples (Cochran 1977, Sampling Techniques, 6.3). Undefined where the noise cannot be known.
 */
export function differenceOf(one: readonly SeedResult[], other: readonly SeedResult[]): Difference | undefined {
  const pairs = one.flatMap((a) => {
    const b = other.find(({ seed }) => seed === a.seed)
    return b === undefined ? [] : [[a, b] as const]
  })
  if (pairs.length > 1) {
    const differences = pairs.map(([a, b]) => a.evalLoss - b.evalLoss)
    const t = student[pairs.length - 2] ?? normal
    return { loss: mean(differences), noise: (t * deviation(differences)) / Math.sqrt(pairs.length), over: 'seeds' }
  }
  const [pair] = pairs
  const [a, b] = [pair?.[0].exampleLosses, pair?.[1].exampleLosses]
  if (pair === undefined || a === undefined || b === undefined || a.length !== b.length || a.length < 2)
    return undefined
  const tokens = a.reduce((sum, [, count]) => sum + count, 0)
  const paired = a.reduce((sum, [loss], i) => sum + loss - b[i]![0], 0) / tokens
  const rests = a.map(([loss, count], i) => loss - b[i]![0] - paired * count)
  const squares = rests.reduce((sum, rest) => sum + rest * rest, 0)
  const error = Math.sqrt((squares * a.length) / (a.length - 1)) / tokens
  return { loss: pair[0].evalLoss - pair[1].evalLoss, noise: normal * error, over: 'examples' }
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

/** Standard deviation of a sample; 0 of a single value. */
export function deviation(values: readonly number[]): number {
  if (values.length < 2) return 0
  const middle = mean(values)
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1))
}
