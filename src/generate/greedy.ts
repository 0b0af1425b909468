import type { Pipeline } from '../engine/pipeline.ts'
import type { Tokenizer } from '../text/tokenizer.ts'

/** The ids that a prompt is continued from; an empty prompt still needs something to continue. */
export function promptIds(tokenizer: Tokenizer, prompt: string): number[] {
  const ids = [...tokenizer.prefix, ...tokenizer.encode(prompt)]
  return ids.length > 0 ? ids : [tokenizer.eosId]
}

/** The most likely continuation of some ids, until the end token. Computes the whole sequence anew for each token. */
export async function generateGreedy(options: {
  readonly pipeline: Pipeline
  readonly tokenizer: Tokenizer
  readonly ids: readonly number[]
  readonly maxNewTokens: number
}): Promise<string> {
  const { pipeline, tokenizer, ids, maxNewTokens } = options
  const made: number[] = []
  while (made.length < maxNewTokens) {
    const next = argmax(await pipeline.nextLogits(Int32Array.from([...ids, ...made])))
    if (next === tokenizer.eosId) break
    made.push(next)
  }
  return tokenizer.decode(made)
}

function argmax(values: Float32Array): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i
  return best
}
