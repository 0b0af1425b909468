import type { LoadedAdapter } from '../engine/cached/adapters.ts'
import type { CachedDecoder } from '../engine/cached/cached-decoder.ts'
import type { KeyValueCache } from '../engine/cached/key-value-cache.ts'
import { LowrankError } from '../util/errors.ts'
import type { PrefixCache } from './prefix-cache.ts'

/** A prompt, and ways to go on from it. */
export interface Continuations {
  /** At least one token. */
  readonly prompt: Int32Array
  /** At least one token each. */
  readonly continuations: readonly Int32Array[]
  readonly adapter?: LoadedAdapter | undefined
}

interface ScoringOptions {
  readonly cancelled?: () => boolean
  /** What earlier prompts left, for those that begin as they did. */
  readonly prefixes?: PrefixCache
}

/** Tokens of a prompt that go through the model at once. */
const chunk = 256

/** Logits that are computed at once: 64 MB of them. */
const mostLogits = 2 ** 24

/** Most continuations that are computed together: each has a copy of what is remembered of the prompt. */
const mostRows = 32

/**
 * The logarithm of the probability of each continuation, in nats: the sum over its tokens, each given the prompt and those before it. The
 * prompt is computed once for all; where positions are seen otherwise in longer texts, once for those that see them alike.
 *
 * @throws LowrankError `model`: the weights give logits that are not finite; `cancelled`.
 */
export async function logLikelihoods(
  decoder: CachedDecoder,
  { prompt, continuations, adapter }: Continuations,
  options: ScoringOptions = {},
): Promise<number[]> {
  const scores = continuations.map(() => NaN)
  const alike = new Map<string, number[]>()
  for (const [i, ids] of continuations.entries()) {
    const regime = decoder.regime(prompt.length + ids.length)
    alike.set(regime, [...(alike.get(regime) ?? []), i])
  }
  for (const group of alike.values()) {
    const some = group.map((i) => continuations[i]!)
    const found = await ofGroup(decoder, { prompt, continuations: some, adapter }, options)
    for (const [n, i] of group.entries()) scores[i] = found[n]!
  }
  return scores
}

/** The same of continuations that see the positions of the prompt alike. */
async function ofGroup(
  decoder: CachedDecoder,
  { prompt, continuations, adapter }: Continuations,
  { cancelled = () => false, prefixes }: ScoringOptions,
): Promise<number[]> {
  const longest = Math.max(...continuations.map(({ length }) => length))
  const length = prompt.length + longest
  const regime = decoder.regime(length)
  const { cache, length: begun } = prefixes?.take(prompt, { adapter, regime }) ?? {
    cache: decoder.newCache(),
    length: 0,
  }
  let first: Float32Array = new Float32Array()
  for (let start = begun; start < prompt.length; start += chunk) {
    if (cancelled()) throw stopped()
    const end = Math.min(start + chunk, prompt.length)
    const logits = end === prompt.length ? 'last' : 'none'
    const found = await decoder.run(cache, { ids: prompt.slice(start, end), adapters: [adapter], logits, length })
    first = found ?? first
  }
  const beginning = logProbabilities(first)
  const scores = continuations.map((ids) => beginning(ids[0]!))
  const rows = Math.max(1, Math.min(mostRows, Math.floor(mostLogits / (first.length * Math.max(1, longest - 1)))))
  // Those of one length together, so that little is computed that nobody asks for.
  const order = continuations.flatMap((ids, i) => (ids.length > 1 ? [i] : []))
  order.sort((a, b) => continuations[a]!.length - continuations[b]!.length)
  for (let start = 0; start < order.length; start += rows) {
    if (cancelled()) throw stopped()
    const some = order.slice(start, start + rows)
    const sums = await rest(decoder, cache, { continuations: some.map((i) => continuations[i]!), adapter, length })
    for (const [row, i] of some.entries()) scores[i]! += sums[row]!
  }
  prefixes?.keep(prompt, { adapter, regime }, cache)
  return scores
}

function stopped(): LowrankError {
  return new LowrankError('cancelled', 'the evaluation was cancelled')
}

/** The same of all tokens but the first, given what is remembered of the prompt. */
async function rest(
  decoder: CachedDecoder,
  prompt: KeyValueCache,
  { continuations, adapter, length }: Omit<Continuations, 'prompt'> & { readonly length: number },
): Promise<number[]> {
  const rows = continuations.length
  const seq = Math.max(...continuations.map((ids) => ids.length)) - 1
  const ids = new Int32Array(rows * seq)
  // What stands behind a shorter one changes nothing before it.
  for (const [row, one] of continuations.entries()) ids.set(one.subarray(0, -1), row * seq)
  const cache = prompt.row(0, rows)
  const adapters = continuations.map(() => adapter)
  const logits = (await decoder.run(cache, { ids, adapters, logits: 'all', length }))!
  const vocabulary = logits.length / ids.length
  return continuations.map((one, row) => {
    let sum = 0
    for (let t = 1; t < one.length; t++) {
      const place = row * seq + t - 1
      sum += logProbabilities(logits.subarray(place * vocabulary, (place + 1) * vocabulary))(one[t]!)
    }
    return sum
  })
}

/** Logarithms of probabilities from the logits of one place, [vocabulary]. */
function logProbabilities(logits: Float32Array): (id: number) => number {
  let most = -Infinity
  for (const value of logits) most = Math.max(most, value)
  let sum = 0
  for (const value of logits) sum += Math.exp(value - most)
  const normalizer = most + Math.log(sum)
  if (!Number.isFinite(normalizer)) {
    throw new LowrankError('model', 'the weights give logits that are not finite', {
      hint: 'Was the model saved whole, and does the adapter belong to it?',
    })
  }
  return (id) => logits[id]! - normalizer
}
