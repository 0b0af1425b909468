import { LowrankError } from '../util/errors.ts'
import { stream, uniform } from '../util/random.ts'
import {
  normalizer,
  processors,
  topIndices,
  type LogitsProcessor,
  type SamplingOptions,
  type TokensSoFar,
} from './processors.ts'

/** A token that could have come, and the logarithm of its probability. */
export interface TokenChance {
  readonly id: number
  readonly logprob: number
}

/** A token that was taken. */
export interface Taken extends TokenChance {
  /** The likeliest tokens in its place, as many as were asked for. */
  readonly top: readonly TokenChance[]
}

/** Takes one token after another. Equal seeds take equal tokens of equal logits. */
export class Sampler {
  readonly #processors: readonly LogitsProcessor[]
  readonly #draws: boolean
  readonly #seed: number
  readonly #row: number
  readonly #logprobs: number | undefined

  /** `row`: which of several with the same seed; `logprobs`: of how many of the likeliest tokens the chances are told. */
  constructor(
    options: SamplingOptions,
    { seed, row, logprobs }: { readonly seed: number; readonly row: number; readonly logprobs?: number | undefined },
  ) {
    this.#processors = processors(options)
    this.#draws = options.doSample
    this.#seed = seed
    this.#row = row
    this.#logprobs = logprobs
  }

  /**
   * The next token. Its chances are those that the model gives it, before anything is changed.
   *
   * @throws LowrankError `model`: the logits are not finite.
   */
  take(logits: Float32Array, tokens: TokensSoFar): Taken {
    const { most, total } = normalizer(logits)
    // Infinite or NaN wherever one of the logits is.
    if (!Number.isFinite(most) || !Number.isFinite(total)) throw notFiniteError()
    const chances = this.#logprobs === undefined ? undefined : logits.slice()
    const chance = (id: number): TokenChance => ({ id, logprob: (chances?.[id] ?? NaN) - most - Math.log(total) })
    for (const process of this.#processors) process(logits, tokens)
    const id = this.#draws ? this.#draw(logits, tokens.made.length) : argmax(logits)
    const top = chances === undefined ? [] : topIndices(chances, this.#logprobs ?? 0).map(chance)
    return { ...chance(id), top }
  }

  #draw(logits: Float32Array, place: number): number {
    const { most, total } = normalizer(logits)
    const [point = 0] = uniform(stream(this.#seed, 'sample', this.#row, place), 1)
    let left = point * total
    let last = 0
    for (let i = 0; i < logits.length; i++) {
      const weight = Math.exp(logits[i]! - most)
      if (weight === 0) continue
      last = i
      left -= weight
      if (left < 0) return i
    }
    return last
  }
}

export function argmax(values: Float32Array): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i
  return best
}

function notFiniteError(): LowrankError {
  return new LowrankError('model', 'the logits of the next token are not finite', {
    hint: 'The weights are finite: some of them are far too large.',
  })
}
