import type { PairSample } from './shapes/sample.ts'
import { commonLength } from '../util/vectors.ts'
import type { Tokenizer } from './tokenizer.ts'

/** A tokenized row, ended by EOS. */
interface TokenizedRow {
  readonly ids: Int32Array
  /** The first token that belongs to the completion. */
  readonly border: number
}

/**
 * Tokenizes rows: ids = prefix + tokens(prompt) + tokens(completion) + EOS. Prefix (BOS) and EOS are put there only where the texts do
 * not have them already.
 *
 * Prompt and completion are tokenized apart, so that the prompt's ids are those seen at generation. A tokenizer that changes a text at its
 * ends (a space before it, as for Llama 2) would do so in the middle: there both are tokenized as one text, as in TRL, and the completion
 * begins with the first token in which that differs from the prompt alone. That token may hold the prompt's last characters.
 */
export async function tokenizeRows(
  tokenizer: Tokenizer,
  rows: readonly Pick<PairSample, 'prompt' | 'completion'>[],
): Promise<TokenizedRow[]> {
  const { changesEnds, prefix, eosId } = tokenizer
  const texts = rows.flatMap(({ prompt, completion }) => [prompt, changesEnds ? prompt + completion : completion])
  const found = await tokenizer.encode(texts)
  return rows.map((_, i) => {
    const [prompt, rest] = [found[2 * i]!, found[2 * i + 1]!]
    const border = changesEnds ? commonLength(prompt, rest) : prompt.length
    const text = changesEnds ? rest : joined(prompt, rest)
    const before = missingPrefix(text, prefix)
    const ended = text.length > border && text.at(-1) === eosId
    return { ids: joined(before, text, ended ? [] : [eosId]), border: before.length + border }
  })
}

/** The ids that prompts are continued from; an empty prompt still needs something to continue. */
export async function tokenizePrompts(tokenizer: Tokenizer, prompts: readonly string[]): Promise<Int32Array[]> {
  return (await tokenizer.encode(prompts)).map((text) => {
    const ids = joined(missingPrefix(text, tokenizer.prefix), text)
    return ids.length > 0 ? ids : Int32Array.of(tokenizer.eosId)
  })
}

/** The prefix, or nothing where the text has it already. */
function missingPrefix(text: Int32Array, prefix: readonly number[]): readonly number[] {
  return commonLength(text, prefix) === prefix.length ? [] : prefix
}

function joined(...parts: readonly ArrayLike<number>[]): Int32Array {
  const ids = new Int32Array(parts.reduce((total, { length }) => total + length, 0))
  let at = 0
  for (const part of parts) {
    ids.set(part, at)
    at += part.length
  }
  return ids
}
