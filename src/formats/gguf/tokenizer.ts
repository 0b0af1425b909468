import { LowrankError } from '../../util/errors.ts'
import type { JsonObject } from '../json.ts'
import type { GgufContents } from './file.ts'
import { mergesOf } from './merges.ts'
import { type PreTokenizer, preTokenizers } from './pre-tokenizers.ts'

/** Kinds of tokens, as SentencePiece numbers them. */
export const kinds = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 }

const convertAgain = 'Name the folder of the model that the file was made from, or convert it again with llama.cpp.'

/** What a file says of its tokens. */
interface Vocabulary {
  readonly tokens: readonly string[]
  /** [tokens]: see `kinds`. */
  readonly types: ArrayLike<number>
  /** Their ids, but for rows that the converter has filled up. */
  readonly ids: ReadonlyMap<string, number>
}

type Refuse = (message: string, hint?: string) => never

/** How a file calls the tokens with a role. */
export const roles = { bos_token: 'bos', eos_token: 'eos', unk_token: 'unknown', pad_token: 'padding' } as const

/**
 * The tokenizer.json of the hub model that a file was made from, as far as the file says: it makes the same tokens of a text.
 *
 * @throws LowrankError `model`: a kind of tokenizer, or a way to cut texts, that is not known, by its name.
 */
export function tokenizerOf(file: GgufContents): JsonObject {
  const { metadata } = file
  const refuse = refusal(file)
  const model = metadata.needed('tokenizer.ggml.model', metadata.text('tokenizer.ggml.model'))
  if (metadata.flag('tokenizer.ggml.remove_extra_whitespaces')) {
    refuse('metadata tokenizer.ggml.remove_extra_whitespaces is true, which is not supported')
  }
  if (model === 'llama') return sentencePiece(file, refuse)
  if (model === 'gpt2') return byteLevel(file, refuse)
  return refuse(`metadata tokenizer.ggml.model "${model}" is not supported (supported: gpt2, llama)`)
}

/** The tokenizer_config.json: tokens with a role, and the template of a conversation. */
export function tokenizerConfigOf(file: GgufContents): JsonObject {
  const { metadata } = file
  const { tokens } = vocabularyOf(file, refusal(file))
  const named = Object.keys(roles).map((role) => [role, tokens[roleId(file, tokens, role as keyof typeof roles) ?? -1]])
  const template = metadata.text('tokenizer.chat_template')
  return {
    tokenizer_class: 'PreTrainedTokenizerFast',
    ...Object.fromEntries(named.filter(([, token]) => token !== undefined)),
    clean_up_tokenization_spaces: false,
    ...(template === undefined ? {} : { chat_template: template }),
  }
}

/** Whether there is a tokenizer at all. */
export function hasTokenizer({ metadata }: GgufContents): boolean {
  return metadata.has('tokenizer.ggml.tokens')
}

/** Bytes as letters, merged by the list of the file. */
function byteLevel(file: GgufContents, refuse: Refuse): JsonObject {
  const { metadata } = file
  const name = metadata.needed('tokenizer.ggml.pre', metadata.text('tokenizer.ggml.pre'))
  const cut: PreTokenizer | undefined = Object.hasOwn(preTokenizers, name) ? preTokenizers[name] : undefined
  if (cut === undefined) {
    return refuse(
      `metadata tokenizer.ggml.pre "${name}" is not supported (supported: ${Object.keys(preTokenizers).join(', ')})`,
    )
  }
  const vocabulary = vocabularyOf(file, refuse)
  const merges = metadata.needed('tokenizer.ggml.merges', metadata.texts('tokenizer.ggml.merges')).map((merge, i) => {
    const space = merge.indexOf(' ', 1)
    if (space === -1) refuse(`metadata tokenizer.ggml.merges[${i}] is ${JSON.stringify(merge)}, which is not a pair`)
    return [merge.slice(0, space), merge.slice(space + 1)]
  })
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: addedTokens(vocabulary),
    normalizer: cut.normalizer,
    pre_tokenizer: cut.preTokenizer,
    post_processor: around(file, vocabulary, cut.addBos),
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: bpe(vocabulary, merges, { ignore_merges: cut.ignoreMerges }),
  }
}

/** What stands for a space in a vocabulary of SentencePiece. */
export const space = '\u2581'

/** Characters, and bytes where there is no token for one; merged by the scores of the tokens. */
function sentencePiece(file: GgufContents, refuse: Refuse): JsonObject {
  const { metadata } = file
  const vocabulary = vocabularyOf(file, refuse, (token) => (/^ {2,}$/.test(token) ? space.repeat(token.length) : token))
  const { tokens, types } = vocabulary
  const scores = metadata.needed('tokenizer.ggml.scores', metadata.numbers('tokenizer.ggml.scores'))
  if (scores.length < tokens.length)
    refuse(`metadata tokenizer.ggml.scores has ${scores.length} entries, but there are ${tokens.length} tokens`)
  const merged = [...vocabulary.ids.values()].filter((id) => types[id] === kinds.normal)
  if (merged.length > 1 && new Set(merged.map((id) => scores[id])).size === 1) {
    refuse('metadata tokenizer.ggml.scores has one score for all tokens, which does not say how texts are cut')
  }
  // What SentencePiece says of tokens that are defined by users; the converter puts another number there.
  const merges = mergesOf(vocabulary.ids, (id) => (types[id] === kinds.userDefined ? 0 : (scores[id] ?? 0)))
  const prefix = metadata.flag('tokenizer.ggml.add_space_prefix') ?? true
  const toMarks = { type: 'Replace', pattern: { String: ' ' }, content: space }
  const fromMarks = [
    { type: 'Replace', pattern: { String: space }, content: ' ' },
    { type: 'ByteFallback' },
    { type: 'Fuse' },
  ]
  const phi3 = metadata.text('general.architecture') === 'phi3'
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    // Phi 3 takes the space behind its tokens, which no key says.
    added_tokens: addedTokens(vocabulary, (token) => phi3 && !['<unk>', '<s>', '<|endoftext|>'].includes(token)),
    normalizer: prefix ? { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: space }, toMarks] } : toMarks,
    pre_tokenizer: null,
    post_processor: around(file, vocabulary, true),
    decoder: {
      type: 'Sequence',
      decoders: prefix ? [...fromMarks, { type: 'Strip', content: ' ', start: 1, stop: 0 }] : fromMarks,
    },
    model: bpe(vocabulary, merges, {
      unk_token: tokens[roleId(file, tokens, 'unk_token') ?? 0] ?? null,
      fuse_unk: true,
      byte_fallback: true,
    }),
  }
}

function bpe({ ids }: Vocabulary, merges: unknown, options: JsonObject): JsonObject {
  return {
    type: 'BPE',
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    ...options,
    vocab: Object.fromEntries(ids),
    merges,
  }
}

function vocabularyOf(
  { metadata }: GgufContents,
  refuse: Refuse,
  spelled: (token: string) => string = (token) => token,
): Vocabulary {
  const tokens = metadata.needed('tokenizer.ggml.tokens', metadata.texts('tokenizer.ggml.tokens')).map(spelled)
  const types = metadata.needed('tokenizer.ggml.token_type', metadata.numbers('tokenizer.ggml.token_type'))
  if (types.length < tokens.length) {
    refuse(`metadata tokenizer.ggml.token_type has ${types.length} entries, but there are ${tokens.length} tokens`)
  }
  const ids = new Map<string, number>()
  tokens.forEach((token, id) => {
    // A row of the embedding without a token.
    if (token === '' || (types[id] === kinds.unused && token === `[PAD${id}]`)) return
    const other = ids.get(token)
    if (other !== undefined)
      refuse(`metadata tokenizer.ggml.tokens has ${JSON.stringify(token)} twice, as ${other} and ${id}`)
    ids.set(token, id)
  })
  return { tokens, types, ids }
}

/** Tokens that are cut out of a text as it is. */
function addedTokens({ ids, types }: Vocabulary, stripsRight: (token: string) => boolean = () => false): JsonObject[] {
  const found = [...ids].filter(([, id]) =>
    [kinds.control, kinds.userDefined, kinds.unknown].includes(types[id] ?? kinds.normal),
  )
  return found.map(([content, id]) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: stripsRight(content),
    normalized: false,
    special: types[id] !== kinds.userDefined,
  }))
}

/** What is put around a text. */
function around(file: GgufContents, { tokens }: Vocabulary, addsBos: boolean): JsonObject | null {
  const piece = (role: 'bos_token' | 'eos_token', byDefault: boolean): [id: number, token: string][] => {
    if (!(file.metadata.flag(`tokenizer.ggml.add_${role}`) ?? byDefault)) return []
    const id = roleId(file, tokens, role)
    return id === undefined ? [] : [[id, tokens[id] ?? '']]
  }
  const [first, last] = [piece('bos_token', addsBos), piece('eos_token', false)]
  if (first.length + last.length === 0) return null
  const special = ([, token]: readonly [number, string]): JsonObject => ({ SpecialToken: { id: token, type_id: 0 } })
  const text = (id: string): JsonObject[] => [
    ...first.map(special),
    { Sequence: { id, type_id: 0 } },
    ...last.map(special),
  ]
  const entries = [...first, ...last].map(([id, token]) => [token, { id: token, ids: [id], tokens: [token] }])
  return {
    type: 'TemplateProcessing',
    single: text('A'),
    pair: [...text('A'), ...text('B')],
    special_tokens: Object.fromEntries(entries) as JsonObject,
  }
}

/** The id of a token with a role; for SentencePiece those that it has where nothing else is said. */
function roleId(
  { path, metadata }: GgufContents,
  tokens: readonly string[],
  role: keyof typeof roles,
): number | undefined {
  const key = `tokenizer.ggml.${roles[role]}_token_id`
  const usual =
    metadata.text('tokenizer.ggml.model') === 'llama'
      ? { unk_token: 0, bos_token: 1, eos_token: 2, pad_token: undefined }[role]
      : undefined
  const id = metadata.count(key) ?? usual
  if (id === undefined || id < tokens.length) return id
  throw new LowrankError('model', `${path}: metadata ${key} is ${id}, but there are ${tokens.length} tokens`)
}

function refusal({ path }: GgufContents): Refuse {
  return (message, hint = convertAgain) => {
    throw new LowrankError('model', `${path}: ${message}`, { hint })
  }
}
