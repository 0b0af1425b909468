import { stream, uniform } from '../src/util/random.ts'

/** Random choices, which a seed and a purpose decide. */
export class Draws {
  readonly #seed: number
  readonly #purpose: string
  #numbers: Float64Array = new Float64Array(0)
  #next = 0
  #blocks = 0

  constructor(seed: number, purpose: string) {
    this.#seed = seed
    this.#purpose = purpose
  }

  /** From 0 below 1. */
  number(): number {
    if (this.#next === this.#numbers.length) {
      this.#numbers = uniform(stream(this.#seed, this.#purpose, this.#blocks++), 256)
      this.#next = 0
    }
    return this.#numbers[this.#next++]!
  }

  /** A whole number from 0 below `limit`, which is at least 1. */
  below(limit: number): number {
    return Math.floor(this.number() * limit)
  }

  /** A whole number from `low` to `high`. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1)
  }

  chance(probability: number): boolean {
    return this.number() < probability
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)]
    if (item === undefined) throw new Error('nothing to pick from')
    return item
  }

  /** Each item with a probability of its own. */
  some<T>(items: readonly T[], probability = 0.5): T[] {
    return items.filter(() => this.chance(probability))
  }
}
