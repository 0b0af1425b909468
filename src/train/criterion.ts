import { type Measured, metricValues, valueOf } from '../metrics/index.ts'
import type { WatchConfig } from './config.ts'
import type { BestEvaluation } from './events.ts'

/** By which number of evaluations a run decides which weights are best, and when it has come to its end. */
export interface Criterion {
  /** As results call it: `loss`, `rougeL`. */
  readonly name: string
  /** For messages. */
  readonly what: string
  readonly greaterIsBetter: boolean
}

/** `metricForBestModel`, in the direction that its table says unless `greaterIsBetter` says another. */
export function criterionOf({
  metricForBestModel: name = 'loss',
  greaterIsBetter,
}: Pick<WatchConfig, 'metricForBestModel' | 'greaterIsBetter'>): Criterion {
  const value = metricValues[name]
  return {
    name,
    what: name === 'loss' ? 'the evaluation loss' : (value?.what ?? name),
    greaterIsBetter: greaterIsBetter ?? value?.greaterIsBetter ?? true,
  }
}

/** The number of an evaluation; NaN where it was not measured. */
export function valueIn({ name }: Criterion, result: Measured): number {
  return valueOf(result, name) ?? NaN
}

/** The number turned so that the lowest is the best. */
export function costOf({ greaterIsBetter }: Criterion, value: number): number {
  return greaterIsBetter ? -value : value
}

/** The same of the best evaluation so far; what was the best by another number does not compare. */
export function costOfBest(criterion: Criterion, best: BestEvaluation | undefined): number {
  const { name = 'loss', value = best?.loss } = best?.metric ?? {}
  return value === undefined || name !== criterion.name ? Infinity : costOf(criterion, value)
}
