import { z } from 'zod'
import { isJsonObject, type JsonObject } from '../../formats/json.ts'
import { LowrankError } from '../../util/errors.ts'
import { brief } from '../../util/format.ts'
import { components, isNested, typesOf, type Section } from './components.ts'

/** A token that is cut out of a text before anything else is done with it. */
export interface AddedToken {
  readonly content: string
  readonly special: boolean
  readonly single_word: boolean
  readonly lstrip: boolean
  readonly rstrip: boolean
  readonly normalized: boolean
}

/** What Lowrank itself reads of a tokenizer.json; the engine reads the rest. */
export interface TokenizerJson {
  /** The type of its model: `BPE`, ... */
  readonly model: string
  readonly addedTokens: readonly (AddedToken & { readonly id: number })[]
  /** Ids that the post-processor puts around a text. */
  readonly prefix: readonly number[]
  readonly suffix: readonly number[]
  /** Whether a token is one of the model's, before any is added. */
  readonly inVocabulary: (token: string) => boolean
  /** Whether a text is changed at its ends, so that two texts tokenized apart are not their sum: a space put before it, or cut off. */
  readonly changesEnds: boolean
}

/** More tokens than any embedding has rows. */
const mostTokens = 2 ** 24

const idSchema = z.number().int().nonnegative().lt(mostTokens)
const flag = z.boolean().default(false)
const addedTokenSchema = z.strictObject({
  id: idSchema,
  content: z.string(),
  special: flag,
  single_word: flag,
  lstrip: flag,
  rstrip: flag,
  normalized: flag,
})

const templateSchema = z.object({
  single: z.array(
    z.union([z.object({ SpecialToken: z.object({ id: z.string() }) }), z.object({ Sequence: z.object({}) })]),
  ),
  special_tokens: z.record(z.string(), z.object({ ids: z.array(idSchema) })).default({}),
})
const classifiedSchema = z.object({
  cls: z.tuple([z.string(), idSchema]),
  sep: z.tuple([z.string(), idSchema]),
})

const listed = 'Every component and option that is computed is listed in docs/support.md.'
const topLevel = ['version', 'truncation', 'padding', 'added_tokens', ...Object.keys(components)]

/**
 * Checks that every component and option of a tokenizer.json is one that is computed, and that ids are ids.
 *
 * @throws LowrankError `model`, naming the file, the component, what was found and what is known.
 */
export function checkTokenizerJson(json: JsonObject, path: string): TokenizerJson {
  const refuse: Refuse = (where, problem) => {
    throw new LowrankError('model', `${path}: ${where}: ${problem}`, { hint: listed })
  }
  for (const key of Object.keys(json)) {
    if (!topLevel.includes(key)) refuse(key, `is not known; known are ${topLevel.join(', ')}`)
  }
  const found: Component[] = []
  for (const section of sections) {
    const value = json[section]
    if (value === null || (value === undefined && section !== 'model')) continue
    walk(section, section, section === 'model' ? typedModel(value) : value, refuse, found)
  }
  const model = found.find(({ section }) => section === 'model') ?? refuse('model', 'is missing')
  checkVocabulary(model, refuse)
  const addedTokens = parse(z.array(addedTokenSchema), json['added_tokens'] ?? [], 'added_tokens', refuse)
  return {
    model: model.type,
    addedTokens,
    ...around(
      found.filter(({ section }) => section === 'post_processor'),
      refuse,
    ),
    inVocabulary: (token) => hasToken(model, token),
    changesEnds: found.some(changesEnds),
  }
}

const sections: readonly Section[] = ['normalizer', 'pre_tokenizer', 'model', 'post_processor', 'decoder']

type Refuse = (where: string, problem: string) => never

interface Component {
  readonly section: Section
  readonly type: string
  readonly where: string
  readonly options: JsonObject
}

/** Collects a component and those within it, in their order. */
function walk(section: Section, where: string, value: unknown, refuse: Refuse, found: Component[], depth = 0): void {
  if (depth > 16) refuse(where, 'is nested too deeply')
  if (!isJsonObject(value)) return refuse(where, `${brief(value)} is not a component`)
  const { type, ...options } = value
  const types = typesOf(section)
  const known = typeof type === 'string' ? types.get(type) : undefined
  if (typeof type !== 'string' || known === undefined) {
    return refuse(where, `type ${brief(type)} is not supported; supported are ${[...types.keys()].join(', ')}`)
  }
  found.push({ section, type, where, options })
  for (const [name, option] of Object.entries(options)) {
    const schema = Object.hasOwn(known, name) ? known[name] : undefined
    const at = `${where}.${name}`
    if (schema === undefined) {
      return refuse(at, `option of ${type} not supported; supported are ${Object.keys(known).join(', ') || 'none'}`)
    }
    if (!isNested(schema)) parse(schema, option, at, refuse)
    else if (!Array.isArray(option)) refuse(at, `${brief(option)} is not a list`)
    else option.forEach((one, i) => walk(section, `${at}[${i}]`, one, refuse, found, depth + 1))
  }
}

/** Older files do not name the type of their model; one with merges is BPE. */
function typedModel(model: unknown): unknown {
  return isJsonObject(model) && !('type' in model) && 'merges' in model ? { type: 'BPE', ...model } : model
}

function parse<T extends z.ZodType>(schema: T, value: unknown, where: string, refuse: Refuse): z.output<T> {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const path = issue?.path ?? []
  const at = path.map((key) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`)).join('')
  const inner = path.reduce<unknown>(
    (one, key) => (typeof one === 'object' && one !== null ? Reflect.get(one, key) : undefined),
    value,
  )
  return refuse(`${where}${at}`, `${brief(inner)} is not supported (${issue?.message ?? 'not valid'})`)
}

function checkVocabulary({ type, options: { vocab, unk_id } }: Component, refuse: Refuse): void {
  if (type === 'Unigram') {
    if (!Array.isArray(vocab)) return refuse('model.vocab', `${brief(vocab)} is not a list`)
    const bad = vocab.findIndex(
      (entry) => !Array.isArray(entry) || typeof entry[0] !== 'string' || typeof entry[1] !== 'number',
    )
    if (bad !== -1) refuse(`model.vocab[${bad}]`, `${brief(vocab[bad])} is not a token with its score`)
    if (typeof unk_id === 'number' && unk_id >= vocab.length) {
      refuse('model.unk_id', `${unk_id} is none of the ${vocab.length} tokens`)
    }
    return
  }
  if (!isJsonObject(vocab)) return refuse('model.vocab', `${brief(vocab)} does not map tokens to ids`)
  const tokens = new Map<number, string>()
  for (const [token, id] of Object.entries(vocab)) {
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= mostTokens) {
      return refuse(
        'model.vocab',
        `${brief(id)} is not an id of ${brief(token)}: ids are whole numbers below ${mostTokens}`,
      )
    }
    const other = tokens.get(id)
    if (other !== undefined) refuse('model.vocab', `${brief(other)} and ${brief(token)} have the same id ${id}`)
    tokens.set(id, token)
  }
}

function hasToken({ options: { vocab } }: Component, token: string): boolean {
  if (isJsonObject(vocab)) return Object.hasOwn(vocab, token)
  return Array.isArray(vocab) && vocab.some((entry) => Array.isArray(entry) && entry[0] === token)
}

/** What post-processors put around a text: each around what those before it made. */
function around(processors: readonly Component[], refuse: Refuse): Pick<TokenizerJson, 'prefix' | 'suffix'> {
  let [prefix, suffix]: [number[], number[]] = [[], []]
  for (const { type, where, options } of processors) {
    const [before, after] =
      type === 'TemplateProcessing'
        ? aroundTemplate(parse(templateSchema, options, where, refuse), where, refuse)
        : 'cls' in options
          ? aroundClassified(parse(classifiedSchema, options, where, refuse))
          : [[], []]
    prefix = [...before, ...prefix]
    suffix = [...suffix, ...after]
  }
  return { prefix, suffix }
}

type Around = readonly [before: readonly number[], after: readonly number[]]

function aroundClassified({ cls, sep }: z.output<typeof classifiedSchema>): Around {
  return [[cls[1]], [sep[1]]]
}

function aroundTemplate(template: z.output<typeof templateSchema>, where: string, refuse: Refuse): Around {
  const ids = template.single.map((piece) => {
    if ('Sequence' in piece) return undefined
    const { id } = piece.SpecialToken
    return template.special_tokens[id]?.ids ?? refuse(`${where}.single`, `${brief(id)} is none of its special_tokens`)
  })
  const text = ids.indexOf(undefined)
  if (text === -1 || ids.lastIndexOf(undefined) !== text) refuse(`${where}.single`, 'must hold the text once')
  return [ids.slice(0, text).flatMap((one) => one ?? []), ids.slice(text + 1).flatMap((one) => one ?? [])]
}

/** An expression that sees where a text begins or ends. */
const anchor = /(?<![[\\])\^|(?<!\\)\$|\\[AzZG]|\(\?<?[=!]/

function changesEnds({ section, type, options }: Component): boolean {
  const { pattern, prepend_scheme: scheme, add_prefix_space: prefixSpace } = options
  if (section === 'normalizer') {
    const expression = isJsonObject(pattern) ? pattern['Regex'] : undefined
    return (
      type === 'Prepend' ||
      type === 'Strip' ||
      (type === 'Replace' && typeof expression === 'string' && anchor.test(expression))
    )
  }
  if (section !== 'pre_tokenizer') return false
  return (
    (type === 'Metaspace' && scheme !== 'never' && prefixSpace !== false) ||
    (type === 'ByteLevel' && prefixSpace === true)
  )
}
