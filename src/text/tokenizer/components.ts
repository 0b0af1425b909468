import { z } from 'zod'

const flag = z.boolean()
const text = z.string()
const character = z.string().regex(/^.$/su, 'one character is expected')
const count = z.number().int().nonnegative()
const pattern = z.union([z.strictObject({ String: text }), z.strictObject({ Regex: text })])
const behavior = z.enum(['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous'])
const prependScheme = z.enum(['always', 'first', 'never'])
const byteLevel = { add_prefix_space: flag, trim_offsets: flag, use_regex: flag }
const metaspace = {
  replacement: character,
  prepend_scheme: prependScheme,
  split: flag,
  // Older spellings: what they say must agree with `prepend_scheme`, which the engine checks.
  add_prefix_space: flag,
  str_rep: text,
}
const tokenWithId = z.tuple([text, count])
const piece = z.union([
  z.strictObject({ Sequence: z.strictObject({ id: z.enum(['A', 'B']), type_id: count }) }),
  z.strictObject({ SpecialToken: z.strictObject({ id: text, type_id: count }) }),
])
const specialToken = z.strictObject({ id: text, ids: z.array(count), tokens: z.array(text) })

/** Components within a component, each of the same section. */
const nested = 'components of the same section'

type Options = Readonly<Record<string, z.ZodType | typeof nested>>

/**
 * Everything of a tokenizer.json that is computed, as the Python library computes it: section, type of component, and each option with
 * the values it may have. What is not here is refused, since the engine would pass over it in silence.
 */
export const components = {
  normalizer: {
    BertNormalizer: {
      clean_text: flag,
      handle_chinese_chars: flag,
      strip_accents: flag.nullable(),
      lowercase: flag,
    },
    ByteLevel: {},
    Lowercase: {},
    NFC: {},
    NFD: {},
    NFKC: {},
    NFKD: {},
    Nmt: {},
    Precompiled: { precompiled_charsmap: text },
    Prepend: { prepend: text },
    Replace: { pattern, content: text },
    Sequence: { normalizers: nested },
    Strip: { strip_left: flag, strip_right: flag },
    StripAccents: {},
  },
  pre_tokenizer: {
    BertPreTokenizer: {},
    ByteLevel: byteLevel,
    CharDelimiterSplit: { delimiter: character },
    Digits: { individual_digits: flag },
    FixedLength: { length: count.positive() },
    Metaspace: metaspace,
    Punctuation: { behavior },
    Sequence: { pretokenizers: nested },
    Split: { pattern, behavior, invert: flag },
    UnicodeScripts: {},
    Whitespace: {},
    WhitespaceSplit: {},
  },
  model: {
    // Dropout makes other ids of the same text each time.
    BPE: {
      dropout: z.literal(0).nullable(),
      unk_token: text.nullable(),
      continuing_subword_prefix: text.nullable(),
      end_of_word_suffix: text.nullable(),
      fuse_unk: flag,
      byte_fallback: flag,
      ignore_merges: flag,
      vocab: z.unknown(),
      merges: z.array(z.unknown()),
    },
    Unigram: { unk_id: count.nullable(), vocab: z.unknown(), byte_fallback: flag },
    WordLevel: { unk_token: text, vocab: z.unknown() },
    WordPiece: {
      unk_token: text,
      continuing_subword_prefix: text,
      max_input_chars_per_word: count,
      vocab: z.unknown(),
    },
  },
  post_processor: {
    BertProcessing: { sep: tokenWithId, cls: tokenWithId },
    ByteLevel: byteLevel,
    RobertaProcessing: { sep: tokenWithId, cls: tokenWithId, trim_offsets: flag, add_prefix_space: flag },
    Sequence: { processors: nested },
    TemplateProcessing: {
      single: z.array(piece),
      pair: z.array(piece),
      special_tokens: z.record(text, specialToken),
    },
  },
  decoder: {
    BPEDecoder: { suffix: text },
    ByteFallback: {},
    ByteLevel: byteLevel,
    CTC: { pad_token: text, word_delimiter_token: text, cleanup: flag },
    Fuse: {},
    Metaspace: metaspace,
    Replace: { pattern, content: text },
    Sequence: { decoders: nested },
    Strip: { content: character, start: count, stop: count },
    WordPiece: { prefix: text, cleanup: flag },
  },
} as const satisfies Readonly<Record<string, Readonly<Record<string, Options>>>>

export type Section = keyof typeof components

/** The options of each type of component of a section. */
export function typesOf(section: Section): ReadonlyMap<string, Options> {
  return new Map<string, Options>(Object.entries(components[section]))
}

/** Whether an option holds further components. */
export function isNested(option: Options[string] | undefined): option is typeof nested {
  return option === nested
}
