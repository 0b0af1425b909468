import type { Pipeline } from '../engine/pipeline.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { LowrankError } from '../util/errors.ts'

/**
 * The most likely continuation of some ids, until the end token or until `cancelled()` says so. Computes the whole sequence again for each
 * token.
 */
export async function generateGreedy(options: {
  readonly pipeline: Pipeline
  readonly tokenizer: Tokenizer
  readonly ids: ArrayLike<number>
  readonly maxNewTokens: number
  readonly cancelled: () => boolean
}): Promise<string> {
  const { pipeline, tokenizer, ids, maxNewTokens, cancelled } = options
  const made: number[] = []
  while (made.length < maxNewTokens) {
    const logits = await pipeline.nextLogits(Int32Array.from([...Array.from(ids), ...made]), cancelled)
    if (logits === undefined) break
    if (!logits.every(Number.isFinite)) throw notFiniteError()
    const next = argmax(logits)
    if (next === tokenizer.eosId) break
    made.push(next)
  }
  const [text = ''] = await tokenizer.decode([made])
  return text
}

function argmax(values: Float32Array): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i
  return best
}

function notFiniteError(): LowrankError {
  return new LowrankError('model', 'the logits of the next token are not finite', {
    hint: 'The weights are finite: some of them are far too large.',
  })
}
