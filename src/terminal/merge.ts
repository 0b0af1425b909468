import { duration, formatSize, number, percent, plural } from '../util/format.ts'
import { table } from './format.ts'

/** What merging changed in some weights: see `MergeChange`. */
interface Change {
  readonly weights: number
  readonly delta: number
  readonly rounding: number
  readonly roundingOfDelta: number
  readonly lost: number
}

/** What the command line shows of a merge: see `MergeResult`. */
interface Merged {
  readonly outputDir: string
  readonly bytes: number
  readonly tensors: number
  readonly dtype: string
  readonly base: string
  readonly seconds: number
  readonly layers: readonly (Change & { readonly layer: number | string })[]
  readonly total: Change
  readonly comparison?: Comparison
}

interface Comparison {
  readonly labelTokens: number
  readonly comparedTokens: number
  readonly models: readonly {
    readonly name: string
    readonly loss: number
    readonly agreement: number
    readonly largestLogitDifference: number
    readonly divergence: number
  }[]
}

/** The result of a merge, at most 100 columns wide. */
export function mergeLines(result: Merged): string[] {
  const { outputDir, bytes, tensors, dtype, base, seconds, layers, total, comparison } = result
  return [
    `saved in ${outputDir}  ${formatSize(bytes)}  ${dtype}  (${plural(tensors, 'tensor')}, ${duration(seconds)}; base ${base})`,
    '',
    ...table(
      ['layer', 'weights', 'added', 'rounding', 'of added', 'lost'],
      [...layers, { layer: 'all', ...total }].map(changeRow),
    ),
    '',
    'added: norm of what was added, as a share of the weights; rounding: of what storing changed, as a',
    'share of the weights and of what was added; lost: elements stored as if nothing had been added',
    ...(comparison === undefined ? [] : comparisonLines(comparison)),
  ]
}

function changeRow({ layer, weights, delta, rounding, roundingOfDelta, lost }: Merged['layers'][number]): string[] {
  return [
    String(layer),
    String(weights),
    percent(delta, 3),
    percent(rounding, 3),
    percent(roundingOfDelta),
    percent(lost),
  ]
}

function comparisonLines({ labelTokens, comparedTokens, models }: Comparison): string[] {
  const rows = models.map(({ name, loss, agreement, largestLogitDifference, divergence }, i) => {
    const differs = i === 0 ? ['', '', ''] : [percent(agreement, 2), small(largestLogitDifference), small(divergence)]
    return [name, number(loss), ...differs]
  })
  const compared = comparedTokens === labelTokens ? '' : `; logits and divergence of the first ${comparedTokens}`
  return [
    '',
    ...table(['model', 'loss', 'same token', 'largest logit', 'divergence'], rows),
    '',
    `compared with the first, over ${plural(labelTokens, 'label token')}${compared}: share of places with the same`,
    'token first, largest difference of a logit, divergence in nats a token',
  ]
}

/** Differences go over many orders of magnitude. */
function small(value: number): string {
  return value === 0 ? '0' : value.toExponential(1)
}
