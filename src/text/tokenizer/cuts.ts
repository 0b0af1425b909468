import { preTokenizers } from '../../formats/gguf/pre-tokenizers.ts'
import { isJsonObject, type JsonObject } from '../../formats/json.ts'
import type { AddedToken } from './check.ts'

/*
 * Where a text may be cut so that its parts, tokenized apart, are the tokens of the whole. The engine (memo.js) remembers what parts come
 * to: a word that came before is looked up, which takes a small part of the time that it takes to merge its bytes again.
 *
 * With the expressions of `preTokenizers`, which never look back:
 *
 * (1) Before one space between what are no blanks: "the| end", "the,| end". What came before ends there, since a space is only ever the
 *     first character of a piece, and what comes next begins there.
 * (2) Between letters, digits and signs, but not from a sign to a letter, which may be one piece, nor from a letter to an apostrophe.
 * (3) Behind one line feed between what is no blank and a letter: it is a piece of its own, or ends one.
 *
 * Where nothing cuts words and spaces are a sign of the vocabulary (Gemma):
 *
 * (4) Before one space between what is no blank and a letter, if no token goes across to there: no merge does then.
 *
 * With both, around an added token that is found in the text as it is, before anything else is done.
 */

/** How texts are cut. */
export interface Cuts {
  /** Whether as in (1) to (3), instead of (4). */
  readonly words: boolean
  /** The added tokens that are cut out. */
  readonly tokens: readonly string[]
}

/** The cuts of a tokenizer.json with these added tokens; undefined where it has none that are known to be safe. */
export function cutsOf(json: JsonObject, added: readonly AddedToken[]): Cuts | undefined {
  const model = json['model']
  if (!isJsonObject(model) || (model['type'] !== 'BPE' && !('merges' in model))) return undefined
  // What takes blanks with it, or looks at its neighbours, is found elsewhere in a part than in the whole.
  if (added.some(({ lstrip, rstrip, single_word: word }) => lstrip || rstrip || word)) return undefined
  if (added.some(({ content }) => content !== content.trim() && content.trim() !== '')) return undefined
  if (added.some(({ content }) => /\S\s+\S/.test(content))) return undefined
  const normalized = new Map(added.map((one) => [one.content, one.normalized]))
  if (added.some((one) => one.normalized !== normalized.get(one.content))) return undefined
  const tokens = added.filter(({ normalized, content }) => !normalized && content !== '').map(({ content }) => content)
  if (cutsWords(json)) return { words: true, tokens }
  return keepsBlanks(json, model) ? { words: false, tokens } : undefined
}

const shape = (value: unknown): string => JSON.stringify(value)
const known = new Set(Object.values(preTokenizers).map(({ preTokenizer }) => shape(completed(preTokenizer))))

/** Whether the text is cut into words by one of the known expressions. */
function cutsWords({ normalizer, pre_tokenizer: preTokenizer }: JsonObject): boolean {
  const plain = normalizer === null || normalizer === undefined || shape(normalizer) === '{"type":"NFC"}'
  return plain && isJsonObject(preTokenizer) && known.has(shape(completed(preTokenizer)))
}

/** With all that decides the words, in one order. */
function completed(component: JsonObject): unknown {
  const { type } = component
  if (type === 'Sequence') {
    const parts = component['pretokenizers']
    return Array.isArray(parts) ? parts.map((one: unknown) => (isJsonObject(one) ? completed(one) : one)) : parts
  }
  if (type === 'ByteLevel') {
    const { add_prefix_space: prefix = true, use_regex: words = true } = component
    return [type, prefix, words]
  }
  if (type === 'Split') {
    const { pattern, behavior, invert = false } = component
    return [type, pattern, behavior, invert]
  }
  // Each digit by itself or all together: no blank is one.
  return type === 'Digits' ? [type] : component
}

/** Whether spaces are a sign of the vocabulary, and none of its tokens goes from something else across that to a letter. */
function keepsBlanks({ normalizer, pre_tokenizer: preTokenizer }: JsonObject, model: JsonObject): boolean {
  const sign = '\u2581'
  const replaced = { type: 'Replace', pattern: { String: ' ' }, content: sign }
  const nothing = { type: 'Split', pattern: { String: ' ' }, behavior: 'MergedWithPrevious', invert: false }
  const { vocab, unk_token: unknown } = model
  if (shape(normalizer) !== shape(replaced) || !isJsonObject(vocab) || !(sign in vocab)) return false
  // Without, what is not known is left out, and the library counts characters wrongly behind it.
  if (typeof unknown !== 'string') return false
  if (preTokenizer !== null && preTokenizer !== undefined && shape(preTokenizer) !== shape(nothing)) return false
  return !Object.keys(vocab).some((token) => across.test(token))
}

/** What a merge across the sign of a space would make: up to it, or up to a letter behind it. */
const across = /[^\u2581]\u2581(?:$|\p{L})/u
