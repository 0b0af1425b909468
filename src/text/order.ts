import { shuffled, stream } from '../util/random.ts'
import { type Examples, lengthOf } from './example.ts'

interface OrderOptions {
  readonly examples: Examples
  readonly seed: number
  /** Examples of an optimizer step. */
  readonly perStep: number
  /** Whether the examples of a step shall be of similar length. */
  readonly groupByLength: boolean
}

/** Steps whose examples are sorted by length together, as in transformers' LengthGroupedSampler. */
const stepsSortedTogether = 50

/** The last order of each dataset: a step needs that of its epoch, and long datasets are not shuffled again for each. */
const known = new WeakMap<Examples, { readonly key: string; readonly order: Int32Array }>()

/**
 * Indices of the examples in the order of an epoch; a step takes the next `perStep`. A function of its arguments alone.
 *
 * With `groupByLength` the shuffled examples are sorted by length in megabatches of 50 steps, cut into steps, and the steps shuffled.
 * What is left for a last, smaller step stays at the end, of any length.
 */
export function epochOrder(options: OrderOptions, epoch: number): Int32Array {
  const { examples, seed, perStep, groupByLength } = options
  const key = JSON.stringify([seed, epoch, groupByLength ? perStep : 0])
  const last = known.get(examples)
  if (last?.key === key) return last.order
  const permutation = shuffled(examples.length, stream(seed, 'shuffle', epoch))
  const order = groupByLength ? grouped(permutation, options, epoch) : permutation
  known.set(examples, { key, order })
  return order
}

function grouped(permutation: Int32Array, { examples, seed, perStep }: OrderOptions, epoch: number): Int32Array {
  const tokensOf = (i: number): number => lengthOf(examples.at(i)!)
  const steps = Math.floor(permutation.length / perStep)
  const sorted = permutation.slice()
  for (let start = 0; start < steps; start += stepsSortedTogether) {
    const end = Math.min(steps, start + stepsSortedTogether)
    // A typed array sorts numerically and, with a comparison, in a stable way.
    sorted.subarray(start * perStep, end * perStep).sort((a, b) => tokensOf(b) - tokensOf(a))
  }
  const order = sorted.slice()
  shuffled(steps, stream(seed, 'shuffle steps', epoch)).forEach((from, to) => {
    order.set(sorted.subarray(from * perStep, (from + 1) * perStep), to * perStep)
  })
  return order
}
