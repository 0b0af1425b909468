import { isDeepStrictEqual } from 'node:util'
import { LowrankError } from '../../util/errors.ts'
import { isJsonObject, type JsonObject } from '../json.ts'
import { endKeys } from './config.ts'
import { preTokenizerName } from './pre-tokenizers.ts'
import { kinds, roles, space } from './tokenizer.ts'
import type { TypedMetadata, TypedValue } from './values.ts'

/** A tokenizer of a hub model, as it is to stand in a file. */
export interface GivenTokenizer {
  /** Its tokenizer.json, which was checked, and where it is, for messages. */
  readonly json: JsonObject
  readonly path: string
  /** Tokens that are cut out of a text as it is, by their ids, and those of them that are special. */
  readonly addedTokens: ReadonlyMap<string, number>
  readonly specialTokens: readonly string[]
  /** Tokens with a role: `bos_token`, ... */
  readonly roles: Readonly<Record<string, string>>
  /** What is put before and behind a text. */
  readonly prefix: readonly number[]
  readonly suffix: readonly number[]
  /** Ids that end a text, EOS first. */
  readonly ends: readonly number[]
  /** Rows of the embedding. */
  readonly rows: number
  /** Chat templates by name; that of most conversations is `default`. */
  readonly templates: ReadonlyMap<string, string>
}

type Refuse = (message: string) => never

/**
 * The metadata of a tokenizer, of which `tokenizerOf` makes one with the same tokens.
 *
 * @throws LowrankError `model`: what llama.cpp has no way to say.
 */
export function tokenizerMetadata(given: GivenTokenizer): TypedMetadata {
  const refuse: Refuse = (message) => {
    throw new LowrankError('model', `${given.path}: ${message}: llama.cpp would make other tokens of a text`, {
      hint: 'Such a model cannot be written as GGUF. "--to merged", or "--to peft", keeps its own tokenizer.',
    })
  }
  const model = isJsonObject(given.json['model']) ? given.json['model'] : {}
  if (model['type'] !== undefined && model['type'] !== 'BPE')
    refuse(`a tokenizer of type ${JSON.stringify(model['type'])}`)
  const own = model['byte_fallback'] === true ? pieces(given, model, refuse) : bytes(given, model, refuse)
  return { ...own, ...rolesOf(given, refuse), ...around(given, refuse), ...templatesOf(given) }
}

/** Bytes as letters, merged by a list. */
function bytes(given: GivenTokenizer, model: JsonObject, refuse: Refuse): TypedMetadata {
  const { json } = given
  const pre = preTokenizerName(json['normalizer'], json['pre_tokenizer'], model['ignore_merges'] === true)
  if (pre === undefined) return refuse('texts are cut in a way (normalizer, pre_tokenizer) that has no name there')
  const { tokens, types } = tokensOf(given, model, (token) => token)
  const merges = mergesOf(model).map(([left, right]) => {
    if (left.includes(' ') || right.includes(' ')) refuse(`the merge of ${JSON.stringify([left, right])} has a space`)
    return `${left} ${right}`
  })
  return {
    'tokenizer.ggml.model': ['text', 'gpt2'],
    'tokenizer.ggml.pre': ['text', pre],
    'tokenizer.ggml.tokens': ['list', 'text', tokens],
    'tokenizer.ggml.token_type': ['list', 'i32', types],
    'tokenizer.ggml.merges': ['list', 'text', merges],
  }
}

/** Characters, and bytes where there is no token for one: the list of merges becomes a score for each token that they make. */
function pieces(given: GivenTokenizer, model: JsonObject, refuse: Refuse): TypedMetadata {
  const prefix = spacePrefix(given.json)
  if (prefix === undefined) return refuse('texts are cut in a way (normalizer, pre_tokenizer) that it does not know')
  // A user's token is looked for in the text, where spaces are no marks yet.
  const spelled = (token: string): string => (isSpaces(token) ? token : token.replaceAll(space, ' '))
  const { tokens, types } = tokensOf(given, model, spelled)
  const ranks = new Map<string, number>()
  for (const [left, right] of mergesOf(model)) {
    const token = left + right
    if (!ranks.has(token)) ranks.set(token, ranks.size + 1)
  }
  let last = ranks.size
  const scores = tokens.map((token, id) => {
    if (types[id] !== kinds.normal) return types[id] === kinds.byte ? 0 : -1000
    return -(ranks.get(token) ?? ++last)
  })
  return {
    'tokenizer.ggml.model': ['text', 'llama'],
    'tokenizer.ggml.pre': ['text', 'default'],
    'tokenizer.ggml.tokens': ['list', 'text', tokens],
    'tokenizer.ggml.scores': ['list', 'f32', scores],
    'tokenizer.ggml.token_type': ['list', 'i32', types],
    'tokenizer.ggml.add_space_prefix': ['bool', prefix],
  }
}

/**
 * Whether a token is of marks for spaces alone. As that of a user it would be cut out of a text before any other, as no tokenizer of the hub
 * does with spaces: it is made by merges, and so has its score.
 */
function isSpaces(token: string): boolean {
  return token.length > 1 && token.replaceAll(space, '') === ''
}

/** Whether a space is put before a text; undefined where more is done with it than to mark its spaces. */
function spacePrefix({ normalizer, pre_tokenizer: cut }: JsonObject): boolean | undefined {
  const marks = { type: 'Replace', pattern: { String: ' ' }, content: space }
  const prepend = { type: 'Prepend', prepend: space }
  // After spaces have become marks there is none to split at.
  const nothing = { type: 'Split', pattern: { String: ' ' }, behavior: 'MergedWithPrevious', invert: false }
  if (isJsonObject(cut) && cut['type'] === 'Metaspace' && cut['replacement'] === space && cut['split'] === false) {
    return (normalizer ?? null) === null ? cut['prepend_scheme'] !== 'never' : undefined
  }
  if ((cut ?? null) !== null && !isDeepStrictEqual(cut, nothing)) return undefined
  if (isDeepStrictEqual(normalizer, marks)) return false
  const both = isJsonObject(normalizer) && normalizer['type'] === 'Sequence' ? normalizer['normalizers'] : undefined
  if (!Array.isArray(both) || both.length !== 2) return undefined
  return isDeepStrictEqual(both[0], prepend) && isDeepStrictEqual(both[1], marks) ? true : undefined
}

/** A token and its kind for each row of the embedding; `spelled`: how the file spells a token of a user. */
function tokensOf(
  { json, addedTokens, specialTokens, rows }: GivenTokenizer,
  model: JsonObject,
  spelled: (token: string) => string,
): { readonly tokens: readonly string[]; readonly types: Int32Array } {
  const tokens: string[] = []
  const types = new Int32Array(rows)
  const set = (token: string, id: number, kind: number): void => {
    // A tokenizer may know of tokens that the model has no row for.
    if (id >= rows) return
    tokens[id] = token
    types[id] = kind
  }
  const fallsBack = model['byte_fallback'] === true
  for (const [token, id] of Object.entries(isJsonObject(model['vocab']) ? model['vocab'] : {})) {
    set(token, Number(id), fallsBack && /^<0x[0-9A-F]{2}>$/.test(token) ? kinds.byte : kinds.normal)
  }
  const special = new Set(specialTokens)
  const listed = Array.isArray(json['added_tokens']) ? json['added_tokens'].filter(isJsonObject) : []
  for (const [token, id] of [
    ...listed.map((one) => [String(one['content']), Number(one['id'])] as const),
    ...addedTokens,
  ]) {
    if (special.has(token)) set(token, id, fallsBack && token === model['unk_token'] ? kinds.unknown : kinds.control)
    else set(spelled(token), id, fallsBack && isSpaces(token) ? kinds.normal : kinds.userDefined)
  }
  for (let id = 0; id < rows; id++) if (tokens[id] === undefined) set(`[PAD${id}]`, id, kinds.unused)
  return { tokens, types }
}

function mergesOf(model: JsonObject): [string, string][] {
  const merges = Array.isArray(model['merges']) ? (model['merges'] as readonly unknown[]) : []
  return merges.map((merge): [string, string] => {
    if (Array.isArray(merge)) return [String(merge[0]), String(merge[1])]
    const text = String(merge)
    const at = text.indexOf(' ', 1)
    return [text.slice(0, at), text.slice(at + 1)]
  })
}

/** Tokens with a role by their ids, and all that ends a text. */
function rolesOf(given: GivenTokenizer, refuse: Refuse): TypedMetadata {
  const ids = new Map<string, number>()
  const vocab = isJsonObject(given.json['model']) ? given.json['model']['vocab'] : undefined
  for (const [role, name] of Object.entries(roles)) {
    const token = given.roles[role]
    if (token === undefined) continue
    const id = given.addedTokens.get(token) ?? (isJsonObject(vocab) ? vocab[token] : undefined)
    if (typeof id === 'number' && id < given.rows) ids.set(`${name}_token_id`, id)
  }
  const [eos, ...others] = given.ends
  if (eos === undefined || eos >= given.rows) return refuse(`the end-of-sequence token ${eos} is beyond the embedding`)
  ids.set('eos_token_id', eos)
  others.slice(0, endKeys.length).forEach((id, i) => ids.set(endKeys[i] ?? '', id))
  return Object.fromEntries([...ids].map(([key, id]): [string, TypedValue] => [`tokenizer.ggml.${key}`, ['u32', id]]))
}

/** BOS before a text and EOS behind it are all that can be said. */
function around({ prefix, suffix, ...given }: GivenTokenizer, refuse: Refuse): TypedMetadata {
  const [bos, eos] = [given.addedTokens.get(given.roles['bos_token'] ?? ''), given.ends[0]]
  if (prefix.length > 1 || (prefix.length === 1 && prefix[0] !== bos)) {
    refuse(`[${prefix.join(', ')}] is put before a text, which is not its BOS`)
  }
  if (suffix.length > 1 || (suffix.length === 1 && suffix[0] !== eos)) {
    refuse(`[${suffix.join(', ')}] is put behind a text, which is not its EOS`)
  }
  return {
    'tokenizer.ggml.add_bos_token': ['bool', prefix.length === 1],
    'tokenizer.ggml.add_eos_token': ['bool', suffix.length === 1],
  }
}

function templatesOf({ templates }: GivenTokenizer): TypedMetadata {
  const others = [...templates].filter(([name]) => name !== 'default')
  const main = templates.get('default')
  return {
    ...(main === undefined ? {} : { 'tokenizer.chat_template': ['text', main] }),
    ...(others.length === 0 ? {} : { 'tokenizer.chat_templates': ['list', 'text', others.map(([name]) => name)] }),
    ...Object.fromEntries(
      others.map(([name, source]): [string, TypedValue] => [`tokenizer.chat_template.${name}`, ['text', source]]),
    ),
  }
}
