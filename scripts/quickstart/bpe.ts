/** The only special token: end of text, and padding. Its id is 0. */
export const endOfText = '<|endoftext|>'

/** GPT-2's pre-tokenizer (Radford et al. 2019): merges never cross these pieces of the text. */
const pieces = /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu

/** Bytes as printable characters, as GPT-2 spells them: printable Latin-1 as itself, the rest from U+0100 on. */
const byteCharacters: readonly string[] = Array.from({ length: 256 }, (_, byte) => byte).map((byte, _, all) => {
  const printable = (value: number) => (value >= 33 && value <= 126) || (value >= 161 && value <= 255 && value !== 173)
  const rank = all.filter((other) => other < byte && !printable(other)).length
  return String.fromCharCode(printable(byte) ? byte : 256 + rank)
})

/** What tokenizer.json needs to know of a trained tokenizer. */
export interface Bpe {
  /** Tokens by id: the special token, the 256 bytes, then one per merge. */
  readonly tokens: readonly string[]
  readonly merges: readonly (readonly [string, string])[]
}

/**
 * Byte-pair encoding (Sennrich et al. 2016) over bytes: the most frequent pair of neighbours becomes a token, until
 * there are `vocabularySize` tokens or no pair occurs twice. Equal counts go by the order of the pairs as text, so
 * the result depends on the texts alone.
 */
export function trainBpe(texts: Iterable<string>, vocabularySize: number): Bpe {
  const words = countWords(texts)
  const tokens = [endOfText, ...byteCharacters]
  const known = new Set(tokens)
  const merges: [string, string][] = []
  while (tokens.length < vocabularySize) {
    const pair = mostFrequentPair(words)
    if (!pair) break
    merges.push(pair)
    for (const word of words) mergePair(word.symbols, pair)
    const token = pair.join('')
    // The same token can come about in two ways ("a" + "bc", "ab" + "c").
    if (!known.has(token)) tokens.push(token)
    known.add(token)
  }
  return { tokens, merges }
}

interface Word {
  readonly symbols: string[]
  readonly count: number
}

function countWords(texts: Iterable<string>): Word[] {
  const counts = new Map<string, number>()
  for (const text of texts) {
    for (const [piece] of text.matchAll(pieces)) counts.set(piece, (counts.get(piece) ?? 0) + 1)
  }
  const encoder = new TextEncoder()
  return Array.from(counts, ([piece, count]) => ({
    symbols: Array.from(encoder.encode(piece), (byte) => byteCharacters[byte] ?? ''),
    count,
  }))
}

function mostFrequentPair(words: readonly Word[]): [string, string] | undefined {
  const counts = new Map<string, number>()
  for (const { symbols, count } of words) {
    for (let at = 1; at < symbols.length; at++) {
      const pair = `${symbols[at - 1] ?? ''} ${symbols[at] ?? ''}`
      counts.set(pair, (counts.get(pair) ?? 0) + count)
    }
  }
  let best = ''
  let bestCount = 1
  for (const [pair, count] of counts) {
    if (count > bestCount || (count === bestCount && bestCount > 1 && pair < best)) {
      best = pair
      bestCount = count
    }
  }
  const [left, right] = best.split(' ')
  return left && right ? [left, right] : undefined
}

function mergePair(symbols: string[], [left, right]: readonly [string, string]): void {
  for (let at = 0; at + 1 < symbols.length; at++) {
    if (symbols[at] === left && symbols[at + 1] === right) symbols.splice(at, 2, left + right)
  }
}

/** The content of tokenizer.json, for the `tokenizers` libraries of Hugging Face. */
export function tokenizerJson({ tokens, merges }: Bpe): object {
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [
      { id: 0, content: endOfText, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
    ],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: merges.map((pair) => pair.join(' ')),
    },
  }
}

/** The content of tokenizer_config.json, special_tokens_map.json and generation_config.json. */
export function tokenizerSettings(maximumLength: number): Readonly<Record<string, object>> {
  return {
    'tokenizer_config.json': {
      added_tokens_decoder: {
        0: { content: endOfText, lstrip: false, normalized: false, rstrip: false, single_word: false, special: true },
      },
      clean_up_tokenization_spaces: false,
      eos_token: endOfText,
      model_max_length: maximumLength,
      pad_token: endOfText,
      tokenizer_class: 'PreTrainedTokenizerFast',
    },
    'special_tokens_map.json': { eos_token: endOfText, pad_token: endOfText },
    'generation_config.json': { eos_token_id: 0, pad_token_id: 0 },
  }
}
