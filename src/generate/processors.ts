/** What a processor of logits may look at. */
export interface TokensSoFar {
  readonly prompt: ArrayLike<number>
  /** What was generated. */
  readonly made: readonly number[]
}

/** Changes logits [vocabulary] in place; -Infinity for tokens that are not to be taken. */
export type LogitsProcessor = (logits: Float32Array, tokens: TokensSoFar) => void

/** What decides how the next token is taken, named and meant as in transformers' `GenerationConfig`; undefined: not used. */
export interface SamplingOptions {
  readonly doSample: boolean
  readonly temperature?: number | undefined
  readonly topK?: number | undefined
  readonly topP?: number | undefined
  readonly minP?: number | undefined
  readonly repetitionPenalty?: number | undefined
  /** Taken off the logits of tokens that were generated: once, and for each time. As in OpenAI's API. */
  readonly presencePenalty?: number | undefined
  readonly frequencyPenalty?: number | undefined
  /** Added to the logits of these tokens. */
  readonly logitBias?: ReadonlyMap<number, number> | undefined
}

/**
 * The processors of these options in transformers' order: bias, penalties, then, where a token is drawn, temperature, top-k, top-p, min-p.
 * (llama.cpp has another order, and penalties over the last 64 tokens only.)
 */
export function processors(options: SamplingOptions): readonly LogitsProcessor[] {
  const { logitBias, repetitionPenalty, presencePenalty = 0, frequencyPenalty = 0 } = options
  const { doSample, temperature, topK, topP, minP } = options
  const found: (LogitsProcessor | undefined)[] = [
    logitBias && logitBias.size > 0 ? bias(logitBias) : undefined,
    repetitionPenalty !== undefined && repetitionPenalty !== 1 ? repetition(repetitionPenalty) : undefined,
    presencePenalty !== 0 || frequencyPenalty !== 0 ? presence(presencePenalty, frequencyPenalty) : undefined,
  ]
  if (doSample) {
    found.push(
      temperature !== undefined && temperature !== 1 ? heat(temperature) : undefined,
      topK !== undefined && topK > 0 ? keepTopK(topK) : undefined,
      topP !== undefined && topP < 1 ? keepTopP(topP) : undefined,
      minP !== undefined && minP > 0 ? keepMinP(minP) : undefined,
    )
  }
  return found.filter((one) => one !== undefined)
}

function bias(by: ReadonlyMap<number, number>): LogitsProcessor {
  return (logits) => {
    for (const [id, value] of by) if (id < logits.length) logits[id]! += value
  }
}

/** Divides the positive logits of all tokens so far, and multiplies the negative ones. Keskar et al. 2019. */
function repetition(penalty: number): LogitsProcessor {
  return (logits, { prompt, made }) => {
    for (const id of new Set([...Array.from(prompt), ...made])) {
      const logit = logits[id]
      if (logit !== undefined) logits[id] = logit < 0 ? logit * penalty : logit / penalty
    }
  }
}

function presence(once: number, each: number): LogitsProcessor {
  return (logits, { made }) => {
    for (const id of made) logits[id]! -= each
    for (const id of new Set(made)) logits[id]! -= once
  }
}

function heat(temperature: number): LogitsProcessor {
  return (logits) => {
    for (let i = 0; i < logits.length; i++) logits[i] = logits[i]! / temperature
  }
}

/** The k largest stay, and those that equal the smallest of them. */
function keepTopK(k: number): LogitsProcessor {
  return (logits) => {
    if (k >= logits.length) return
    const least = kthLargest(logits, k)
    for (let i = 0; i < logits.length; i++) if (logits[i]! < least) logits[i] = -Infinity
  }
}

/**
 * The least likely go while they have at most 1 - p together. Holtzman et al. 2019. What has less than its equal share of 1 - p is never
 * kept, so that few are left to be sorted: sorting a vocabulary takes longer than the model.
 */
function keepTopP(p: number): LogitsProcessor {
  return (logits) => {
    const { most, total } = normalizer(logits)
    const probability = (i: number): number => Math.exp(logits[i]! - most) / total
    const share = (1 - p) / logits.length
    const likely: number[] = []
    let gone = 0
    for (let i = 0; i < logits.length; i++) {
      const own = probability(i)
      if (own >= share) likely.push(i)
      else gone += own
    }
    likely.sort((a, b) => logits[a]! - logits[b]! || a - b)
    const kept = new Set<number>()
    for (const [place, i] of likely.entries()) {
      gone += probability(i)
      if (gone > 1 - p || place === likely.length - 1) kept.add(i)
    }
    for (let i = 0; i < logits.length; i++) if (!kept.has(i)) logits[i] = -Infinity
  }
}

/** What is less likely than a share of the most likely one goes. Nguyen et al. 2024. */
function keepMinP(share: number): LogitsProcessor {
  return (logits) => {
    const least = largest(logits) + Math.log(share)
    for (let i = 0; i < logits.length; i++) if (logits[i]! < least) logits[i] = -Infinity
  }
}

export function largest(values: Float32Array): number {
  let most = -Infinity
  for (const value of values) if (value > most) most = value
  return most
}

/** What logits are normalized with: a probability is exp(logit - most) / total. */
export function normalizer(logits: Float32Array): { readonly most: number; readonly total: number } {
  const most = largest(logits)
  let total = 0
  for (const logit of logits) total += Math.exp(logit - most)
  return { most, total }
}

/** The k-th largest value, by a heap of k: few of the values of a vocabulary get into it. */
function kthLargest(values: Float32Array, k: number): number {
  const heap = values.slice(0, k).sort()
  for (let i = k; i < values.length; i++) {
    const value = values[i]!
    if (value <= heap[0]!) continue
    // The smallest stands first: it goes, and the new one sinks to its place.
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= k) break
      if (child + 1 < k && heap[child + 1]! < heap[child]!) child++
      if (heap[child]! >= value) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = value
  }
  return heap[0]!
}

/** The indices of the `count` largest values, the largest first. */
export function topIndices(values: Float32Array, count: number): number[] {
  if (count <= 0) return []
  const least = count < values.length ? kthLargest(values, count) : -Infinity
  const found: number[] = []
  for (let i = 0; i < values.length; i++) if (values[i]! >= least) found.push(i)
  return found.sort((a, b) => values[b]! - values[a]! || a - b).slice(0, count)
}
