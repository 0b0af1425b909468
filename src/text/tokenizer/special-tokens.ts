import { isJsonObject, type JsonObject } from '../../formats/json.ts'
import { LowrankError } from '../../util/errors.ts'
import type { AddedToken, TokenizerJson } from './check.ts'

/** The files beside tokenizer.json that know of tokens; what is not there is empty. */
interface TokenFiles {
  readonly json: TokenizerJson
  /** tokenizer_config.json */
  readonly config: JsonObject
  /** special_tokens_map.json and added_tokens.json, which only count where tokenizer_config.json has no `added_tokens_decoder`. */
  readonly specialTokensMap: JsonObject
  readonly addedTokens: JsonObject
}

interface SpecialTokens {
  /** Tokens to add to those of tokenizer.json, or to change there, in this order. */
  readonly added: readonly AddedToken[]
  /** Tokens whose id a file says. */
  readonly declared: ReadonlyMap<string, number>
  /** The text of `eos_token`: that of tokenizer_config.json, which transformers lets special_tokens_map.json overrule. */
  readonly eos: string | undefined
  /** The texts of all tokens with a role, by it. */
  readonly roles: Readonly<Record<string, string>>
}

/** The tokens with a role of which transformers knows by name. */
const roles = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token']

/**
 * Which tokens are added or special, from all files, in the way in which transformers 5 reads them (TokenizersBackend): first
 * those of `added_tokens_decoder`, then those with a role, which are special whatever was said before.
 *
 * @throws LowrankError `model`: an entry of `added_tokens_decoder` is no token.
 */
export function specialTokens(files: TokenFiles, configPath: string): SpecialTokens {
  const known = new Map<string, AddedToken>()
  const declared = new Map<string, number>()
  const declare = (id: number, token: AddedToken): void => {
    known.set(token.content, token)
    declared.set(token.content, id)
  }
  const decoder = files.config['added_tokens_decoder']
  const legacy = decoder === undefined || decoder === null
  const config = legacy ? { ...files.config, ...files.specialTokensMap } : files.config
  const named = namedTokens(config)
  if (legacy) {
    for (const [content, id] of Object.entries(files.addedTokens)) {
      const special = named.some((token) => contentOf(token) === content)
      if (typeof id === 'number') declare(id, tokenOf(content, { special, normalized: !special }))
    }
    for (const { id, ...token } of files.json.addedTokens) declare(id, token)
  } else {
    for (const [id, token] of entriesOf(decoder, configPath)) declare(id, token)
    for (const { id, content } of files.json.addedTokens) if (!declared.has(content)) declared.set(content, id)
  }
  const first = [...known.values()].toSorted((a, b) => idOf(declared, a) - idOf(declared, b))
  const special = named.flatMap((entry) => {
    const content = contentOf(entry)
    if (content === undefined) return []
    return [{ ...(known.get(content) ?? tokenOf(content, isJsonObject(entry) ? entry : {})), special: true }]
  })
  const eos = contentOf(files.config['eos_token'] ?? config['eos_token'])
  const withRole = Object.entries(config).flatMap(([key, entry]) => {
    const content = key.endsWith('_token') ? contentOf(entry) : undefined
    return content === undefined ? [] : [[key, content] as const]
  })
  return { added: [...first, ...special], declared, eos, roles: Object.fromEntries(withRole) }
}

function idOf(declared: ReadonlyMap<string, number>, { content }: AddedToken): number {
  return declared.get(content) ?? Infinity
}

/** `added_tokens_decoder`: from ids, written as text, to tokens. */
function entriesOf(decoder: unknown, path: string): [number, AddedToken][] {
  const refuse = (found: unknown): never => {
    throw new LowrankError(
      'model',
      `${path}: added_tokens_decoder: ${JSON.stringify(found)} is not a token with its id`,
    )
  }
  if (!isJsonObject(decoder)) return refuse(decoder)
  return Object.entries(decoder).map(([id, token]) => {
    const content = contentOf(token)
    if (!/^\d{1,8}$/.test(id) || !isJsonObject(token) || content === undefined) return refuse({ [id]: token })
    return [Number(id), tokenOf(content, token)]
  })
}

/** Tokens with a role, and those that are special without one; each a text, or an object with the text in `content`. */
function namedTokens(config: JsonObject): unknown[] {
  const own = Object.entries(config).filter(([key, value]) => key.endsWith('_token') && typeof value === 'string')
  const further = config['extra_special_tokens'] ?? config['additional_special_tokens']
  return [
    ...roles.map((role) => config[role]),
    ...own.filter(([key]) => !roles.includes(key)).map(([, token]) => token),
    ...(Array.isArray(further) ? further : isJsonObject(further) ? Object.values(further) : []),
  ]
}

function contentOf(entry: unknown): string | undefined {
  const content = isJsonObject(entry) ? entry['content'] : entry
  return typeof content === 'string' && content !== '' ? content : undefined
}

/** A token with the options of an entry. What is not said is as the library has it: special tokens are looked for in the text as it is. */
function tokenOf(content: string, entry: JsonObject): AddedToken {
  const { special = false, normalized = special !== true } = entry
  return {
    content,
    special: special === true,
    single_word: entry['single_word'] === true,
    lstrip: entry['lstrip'] === true,
    rstrip: entry['rstrip'] === true,
    normalized: normalized === true,
  }
}
