import { shuffled, stream } from '../util/random.ts'
import { type Example, type Examples, labelsOf, lengthOf } from './example.ts'
import type { Dataset, DatasetSummary } from './dataset.ts'

/** Some examples of others, in another order or more than once: 4 bytes each. */
class ExampleView implements Examples {
  readonly #base: Examples
  readonly #order: Uint32Array

  constructor(base: Examples, order: Uint32Array) {
    this.#base = base
    this.#order = order
  }

  get length(): number {
    return this.#order.length
  }

  at(position: number): Example | undefined {
    const index = this.#order.at(position)
    return index === undefined ? undefined : this.#base.at(index)
  }

  slice(start?: number, end?: number): Example[] {
    return Array.from(this.#order.slice(start, end), (index) => this.#base.at(index)!)
  }
}

/** A run of examples, and how often each comes. */
export interface WeightedRun {
  readonly first: number
  readonly length: number
  readonly weight: number
}

/** Examples with weights: 2 is twice each, 1.5 once each and half of them, chosen by the seed, once more. */
export function weighted(examples: Examples, runs: readonly WeightedRun[], seed: number): Examples {
  if (runs.every(({ weight }) => weight === 1)) return examples
  const order: number[] = []
  for (const [run, { first, length, weight }] of runs.entries()) {
    for (let copy = 0; copy < Math.floor(weight); copy++) for (let i = 0; i < length; i++) order.push(first + i)
    const rest = Math.round((weight % 1) * length)
    const chosen = shuffled(length, stream(seed, 'weights', run)).subarray(0, rest)
    for (const i of chosen.toSorted()) order.push(first + i)
  }
  return new ExampleView(examples, Uint32Array.from(order))
}

/** Puts a share of a dataset, chosen by the seed, apart from the rest; both keep the order. Undefined where one would be empty. */
export function divided(
  dataset: Dataset,
  share: number,
  seed: number,
): { readonly rest: Dataset; readonly part: Dataset } | undefined {
  const { examples, summary } = dataset
  const { length } = examples
  const count = Math.round(share * length)
  if (count === 0 || count === length) return undefined
  const order = Uint32Array.from(shuffled(length, stream(seed, 'split')))
  const of = (indices: Uint32Array, path: string): Dataset => {
    const view = new ExampleView(examples, indices.sort())
    const runs = [{ first: 0, length: view.length }]
    const fingerprints = Float64Array.from(indices, (index) => dataset.fingerprints[index]!)
    const samples = dataset.samples && Array.from(indices, (index) => dataset.samples?.[index])
    const counted = { ...summary, path, ...countsOf(view) }
    return { ...dataset, examples: view, runs, summary: counted, problems: [], fingerprints, samples }
  }
  const part = of(order.slice(0, count), `${summary.path}, ${count} of its examples`)
  // What was found is found in all of it, and told once.
  return {
    rest: of(order.slice(count), summary.path),
    part: { ...part, summary: { ...part.summary, findings: [], truncated: 0, dropped: 0, skippedLines: 0 } },
  }
}

function countsOf(examples: Examples): Pick<DatasetSummary, 'examples' | 'tokens' | 'labelTokens'> {
  let [tokens, labelTokens] = [0, 0]
  for (let i = 0; i < examples.length; i++) {
    const example = examples.at(i)!
    tokens += lengthOf(example)
    labelTokens += labelsOf(example)
  }
  return { examples: examples.length, tokens, labelTokens }
}
