import { stepsPerEpoch, stepShapes, type TrainingOrder } from './batches.ts'

/** What shared prefixes leave to be computed of an epoch, or of as many of its steps as `mostTried` examples make. */
export interface PrefixSavings {
  /** Examples of a micro-batch, and micro-batches of a step. */
  readonly batchSize: number
  readonly accumulation: number
  /** Positions that are computed, padding included, where each example has a row of its own, and where beginnings are shared. */
  readonly separate: number
  readonly shared: number
}

const mostTried = 20_000

export function prefixSavings(order: TrainingOrder): PrefixSavings {
  const { batchSize, accumulation } = order
  const steps = Math.min(stepsPerEpoch(order), Math.ceil(mostTried / (batchSize * accumulation)))
  const positions = (sharePrefixes: boolean): number => {
    let total = 0
    for (let step = 0; step < steps; step++) {
      for (const { batch, seq } of stepShapes({ ...order, sharePrefixes, step })) total += batch * seq
    }
    return total
  }
  return { batchSize, accumulation, separate: positions(false), shared: positions(true) }
}
