import { LowrankError } from '../util/errors.ts'
import { stream, uniform } from '../util/random.ts'
import { argmax } from '../util/vectors.ts'
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
    checkFinite(logits)
    const chance = this.#logprobs === undefined ? (id: number) => ({ id, logprob: NaN }) : chances(logits.slice())
    const likeliest = this.#logprobs === undefined ? [] : topIndices(logits, this.#logprobs)
    for (const process of this.#processors) process(logits, tokens)
    const id = this.#draws ? this.#draw(logits, tokens.made.length) : argmax(logits)
    const top = likeliest.map(chance)
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

/** The chances of tokens by logits, which must not change. */
function chances(logits: Float32Array): (id: number) => TokenChance {
  const { most, total } = normalizer(logits)
  return (id) => ({ id, logprob: logits[id]! - most - Math.log(total) })
}

/** Some may be minus infinity, but not all. */
function checkFinite(logits: Float32Array): void {
  let some = false
  for (const logit of logits) {
    if (!(logit < Infinity)) throw notFiniteError()
    some ||= logit > -Infinity
  }
  if (!some) throw notFiniteError()
}

function notFiniteError(): LowrankError {
  return new LowrankError('model', 'the logits of the next token are not finite', {
    hint: 'The weights are finite: some of them are far too large.',
  })
}
