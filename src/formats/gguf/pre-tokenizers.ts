import { isJsonObject, type JsonObject } from '../json.ts'

/** How texts are cut before bytes are merged. */
export interface PreTokenizer {
  readonly normalizer: JsonObject | null
  readonly preTokenizer: JsonObject
  /** Whether a piece that is a token is one, however merges would make it. */
  readonly ignoreMerges: boolean
  /** Whether a text begins with BOS where the file does not say so. */
  readonly addBos: boolean
}

/** English contractions in any case. */
const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
const ends = String.raw`\s*[\r\n]+|\s+(?!\S)|\s+`
const lower = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
const upper = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
const before = String.raw`[^\r\n\p{L}\p{N}]?`
const symbols = String.raw` ?[^\s\p{L}\p{N}]+`

/** Words with the character before them, and digits in groups of so many. */
const words = (digits: string): string =>
  String.raw`${contractions}|${before}\p{L}+|\p{N}${digits}|${symbols}[\r\n]*|${ends}`
/** Words that are cut where small letters are followed by capitals. */
const cases = (suffix: string, digits: string): string =>
  `${before}${upper}*${lower}+${suffix}|${before}${upper}+${lower}*${suffix}|` +
  String.raw`\p{N}${digits}|${symbols}[\r\n/]*|${ends}`

const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }

function sequence(...pretokenizers: readonly JsonObject[]): JsonObject {
  return { type: 'Sequence', pretokenizers }
}

function split(expression: string, options: Partial<PreTokenizer> = {}): PreTokenizer {
  const cut = { type: 'Split', pattern: { Regex: expression }, behavior: 'Isolated', invert: false }
  return { ...plain, preTokenizer: sequence(cut, { ...byteLevel, use_regex: false }), ...options }
}

/** GPT 2. */
const plain: PreTokenizer = { normalizer: null, preTokenizer: byteLevel, ignoreMerges: false, addBos: false }
/** StarCoder and what came of it: every digit is by itself. */
const digits: PreTokenizer = {
  ...plain,
  preTokenizer: sequence({ type: 'Digits', individual_digits: true }, byteLevel),
}
const llama3 = split(words('{1,3}'), { ignoreMerges: true, addBos: true })
const qwen = split(words(''), { normalizer: { type: 'NFC' } })
const gpt4o = split(cases(`${contractions}?`, '{1,3}'))

/** By `tokenizer.ggml.pre`: those of the models that are read. */
export const preTokenizers: Readonly<Record<string, PreTokenizer>> = {
  'gpt-2': plain,
  'phi-2': plain,
  olmo: plain,
  smollm: digits,
  starcoder: digits,
  refact: digits,
  'llama-bpe': llama3,
  llama3,
  'llama-v3': llama3,
  pixtral: llama3,
  falcon3: llama3,
  dbrx: split(words('{1,3}')),
  qwen2: qwen,
  'deepseek-r1-qwen': qwen,
  tekken: split(cases('', ''), { ignoreMerges: true, addBos: true }),
  'gpt-4o': gpt4o,
  llama4: gpt4o,
}

/** The name of a way to cut texts; undefined where it has none. Of several names it is the first. */
export function preTokenizerName(
  normalizer: unknown,
  preTokenizer: unknown,
  ignoreMerges: boolean,
): string | undefined {
  const wanted = [plainly(normalizer), plainly(preTokenizer)].join()
  const found = Object.entries(preTokenizers).find(
    ([, one]) =>
      one.ignoreMerges === ignoreMerges && [plainly(one.normalizer), plainly(one.preTokenizer)].join() === wanted,
  )
  return found?.[0]
}

/** Other spellings of the expressions above. */
const spellings: readonly (readonly [string, string])[] = [
  ["'(?i:[sdmt]|ll|ve|re)", contractions],
  // What a greedy expression has passed over it does not need to give back here.
  ['?+', '?'],
  ['++', '+'],
  [String.raw`\s*[\r\n]|`, String.raw`\s*[\r\n]+|`],
]

/** Components as a text that is equal where they cut alike. */
function plainly(component: unknown): string {
  if (!isJsonObject(component)) return JSON.stringify([])
  const { type } = component
  const nested = component['pretokenizers'] ?? component['normalizers']
  if (type === 'Sequence' && Array.isArray(nested)) {
    return JSON.stringify(nested.flatMap((one) => JSON.parse(plainly(one)) as unknown[]))
  }
  // Offsets are no part of the tokens.
  const { trim_offsets: _, ...options } = component
  if (type === 'Split' && isJsonObject(component['pattern']) && typeof component['pattern']['Regex'] === 'string') {
    const Regex = spellings.reduce((text, [from, to]) => text.replaceAll(from, to), component['pattern']['Regex'])
    // Each of the expressions matches all of a text: to keep what it matches is to cut there.
    const keeps = component['behavior'] === 'Removed' && component['invert'] === true
    const cut = keeps ? { behavior: 'Isolated', invert: false } : {}
    Object.assign(options, { pattern: { Regex }, ...cut })
  }
  return JSON.stringify([Object.entries(options).toSorted(([a], [b]) => (a < b ? -1 : 1))])
}
