import type { JsonObject } from '../formats/json.ts'
import { type ModelFiles, openModelFiles } from '../formats/model-files.ts'
import { LowrankError } from '../util/errors.ts'
import { checkTokenizerJson } from './tokenizer/check.ts'
import { cutsOf } from './tokenizer/cuts.ts'
import { Engine } from './tokenizer/process.ts'
import type { MarkedText } from './template/turns.ts'
import { specialTokens } from './tokenizer/special-tokens.ts'

/**
 * Text to token ids and back, as the model's own `tokenizer.json` says. Computed in a process of its own, which starts when it is first
 * needed; errors have code `model`, or `cancelled`.
 */
export interface Tokenizer {
  /**
   * Ids of each text, without the special tokens that the tokenizer puts around one. Text that spells a special token
   * (`<|im_end|>`) becomes that token, which is what transformers does by default.
   */
  encode(texts: readonly string[]): Promise<Int32Array[]>
  /**
   * The same of texts of which some characters (UTF-16 code units) are to be learned: the tokens that they are of have their highest bit set
   * (`idOf`, `isLabel` of `example.ts`).
   */
  encodeMarked(texts: readonly MarkedText[]): Promise<Int32Array[]>
  /** The text of each sequence of ids; special tokens are left out unless asked for. */
  decode(sequences: readonly ArrayLike<number>[], options?: { readonly skipSpecialTokens?: boolean }): Promise<string[]>
  /** The token of an id, as the vocabulary spells it. */
  tokenOf(id: number): Promise<string | undefined>
  /** What the tokenizer puts before a text: BOS for Llama, nothing for many others. */
  readonly prefix: readonly number[]
  /** What it puts behind a text. */
  readonly suffix: readonly number[]
  /** Tokens that are looked for in a text as they are: special ones, and others that were added. */
  readonly addedTokens: ReadonlyMap<string, number>
  /** Those of them that are special: no text of a user should spell one. */
  readonly specialTokens: readonly string[]
  /** Tokens with a role, by it: `bos_token`, ... */
  readonly roles: Readonly<Record<string, string>>
  /** Whether a text is changed at its ends (a space put before it, as for Llama 2), so that two texts apart are not their sum. */
  readonly changesEnds: boolean
  /** The id that ends a completion. */
  readonly eosId: number
  /** Where `eosId` is from: `generation_config.json: eos_token_id`. */
  readonly eosSource: string
  /** Ends the process; it starts again when it is needed. */
  close(): void
}

export interface LoadTokenizerOptions {
  /** Asked ten times a second while something is computed, which ends when it says so. */
  readonly cancelled?: () => boolean
  /** What may be done while the process starts, which takes a fifth of a second. */
  readonly meanwhile?: () => Promise<void>
}

/**
 * Loads the tokenizer of a model: the `tokenizer.json` of its folder, or what a GGUF file says of one.
 *
 * @throws LowrankError `model`: a file is missing, or holds what is not computed exactly; `cancelled`.
 */
export async function loadTokenizer(
  model: string,
  { cancelled = () => false, meanwhile }: LoadTokenizerOptions = {},
): Promise<Tokenizer> {
  const files = await openModelFiles(model)
  const path = files.where('tokenizer.json')
  if (!files.names.includes('tokenizer.json')) {
    throw new LowrankError('model', `${model} has no ${files.isGguf ? 'tokenizer' : 'tokenizer.json'}`, {
      hint: 'Save the fast tokenizer beside the model (in Python: AutoTokenizer.from_pretrained(model).save_pretrained(folder)).',
    })
  }
  const read = (name: string): Promise<JsonObject> =>
    files.names.includes(name) ? files.json(name, { maxBytes: maxTokenizerBytes }) : Promise.resolve({})
  let given: JsonObject | undefined = await read('tokenizer.json')
  const json = checkTokenizerJson(given, path)
  const config = await read('tokenizer_config.json')
  const [specialTokensMap, addedTokens] = [await read('special_tokens_map.json'), await read('added_tokens.json')]
  const configPath = files.where('tokenizer_config.json')
  const special = specialTokens({ json, config, specialTokensMap, addedTokens }, configPath)
  if (special.eos !== undefined && !special.declared.has(special.eos) && !json.inVocabulary(special.eos)) {
    throw unknownEos(special.eos, `${configPath}: eos_token`)
  }
  // What was made of a GGUF file is kept until the engine has it, which is at once; to start it again, it is made again.
  const text = async (): Promise<string> => {
    const made = given === undefined ? await files.text('tokenizer.json') : JSON.stringify(given)
    given = undefined
    return made
  }
  const cuts = cutsOf(given, [...json.addedTokens, ...special.added])
  const engine = new Engine({ path, text: files.isGguf ? text : undefined, added: special.added, cuts, cancelled })
  if (!files.isGguf) given = undefined
  try {
    const checking = checkIds(engine, special.declared, path)
    // Reported where it is awaited.
    checking.catch(() => {})
    await meanwhile?.()
    await checking
    const eos =
      special.eos === undefined
        ? await eosFromIds(engine, files, {
            'generation_config.json': await read('generation_config.json'),
            'config.json': await read('config.json'),
          })
        : await eosFromToken(engine, special.eos, `${configPath}: eos_token`)
    const cleansUp = config['clean_up_tokenization_spaces'] === true && json.model !== 'BPE'
    return {
      encode: (texts) =>
        idsOf(
          engine,
          texts.map((text) => ({ text, spans: [] })),
        ),
      encodeMarked: (texts) => idsOf(engine, texts),
      decode: async (sequences, { skipSpecialTokens = true } = {}) => {
        const texts = await engine.ask('decode', { sequences, skipSpecialTokens }, lengthOf(sequences))
        return cleansUp ? texts.map(cleanUp) : texts
      },
      tokenOf: async (id) => (await engine.ask('tokensOf', [id], 1))[0],
      prefix: json.prefix,
      suffix: json.suffix,
      addedTokens: special.declared,
      specialTokens: [
        ...new Set([...json.addedTokens, ...special.added].filter((one) => one.special).map(({ content }) => content)),
      ],
      roles: special.roles,
      changesEnds: json.changesEnds,
      ...eos,
      close: () => engine.close(),
    }
  } catch (error) {
    engine.close()
    throw error
  }
}

async function idsOf(engine: Engine, texts: readonly MarkedText[]): Promise<Int32Array[]> {
  const { lengths, ids } = await engine.ask('encode', texts, lengthOf(texts.map(({ text }) => text)))
  let end = 0
  return Array.from(lengths, (length) => ids.subarray(end, (end += length)))
}

const maxTokenizerBytes = 256 * 2 ** 20

/** Names of the files that belong to a tokenizer. */
export const tokenizerFiles: readonly string[] = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'tokenizer.model',
]

/** Names of the small files that go with the weights of a model wherever they go; its config.json is another for each. */
export const companionFiles: readonly string[] = [
  ...tokenizerFiles,
  'generation_config.json',
  // Of models of images.
  'preprocessor_config.json',
  'processor_config.json',
]

function lengthOf(parts: readonly { readonly length: number }[]): number {
  return parts.reduce((total, { length }) => total + length, 0)
}

/** Added tokens get the next free id, whatever their file says: the two must agree. */
async function checkIds(engine: Engine, declared: ReadonlyMap<string, number>, path: string): Promise<void> {
  const tokens = [...declared.keys()].filter((content) => content !== '')
  const ids = await engine.ask('idsOf', tokens, tokens.length)
  tokens.forEach((content, i) => {
    const [id, wanted] = [ids[i], declared.get(content)]
    if (id === wanted) return
    throw new LowrankError(
      'model',
      `${path}: the added token ${JSON.stringify(content)} has the id ${wanted}, but comes to ${id} behind the vocabulary`,
      { hint: 'Ids of added tokens follow those of the vocabulary without a gap, in the order of the file.' },
    )
  })
}

interface Eos {
  readonly eosId: number
  readonly eosSource: string
}

async function eosFromToken(engine: Engine, token: string, where: string): Promise<Eos> {
  const [id] = await engine.ask('idsOf', [token], 1)
  if (id === undefined) throw unknownEos(token, where)
  return { eosId: id, eosSource: where }
}

function unknownEos(token: string, where: string): LowrankError {
  return new LowrankError('model', `${where}: ${JSON.stringify(token)} is not a token of the tokenizer`, {
    hint: 'Name a token of tokenizer.json, or describe it in "added_tokens_decoder" of tokenizer_config.json.',
  })
}

/** The `eos_token_id`, a number or the first of a list, of the first of the files that has one. */
async function eosFromIds(
  engine: Engine,
  files: ModelFiles,
  contents: Readonly<Record<string, JsonObject>>,
): Promise<Eos> {
  for (const [name, { eos_token_id: entry }] of Object.entries(contents)) {
    const id: unknown = Array.isArray(entry) ? entry[0] : entry
    if (id === undefined || id === null) continue
    const eosSource = `${files.where(name)}: eos_token_id`
    const isId = typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < 2 ** 32
    if (isId && (await engine.ask('tokensOf', [id], 1))[0] !== undefined) return { eosId: id, eosSource }
    throw new LowrankError('model', `${eosSource}: ${JSON.stringify(id)} is not an id of the tokenizer`, {
      hint: 'It names the token that ends a text, by its id in tokenizer.json.',
    })
  }
  throw new LowrankError('model', `${files.path}: no end-of-sequence token found`, {
    hint: 'Set "eos_token" in tokenizer_config.json, or "eos_token_id" in generation_config.json or config.json.',
  })
}

/** Spaces that word pieces leave before punctuation are taken out, as transformers does on request. */
function cleanUp(text: string): string {
  return cleanUps.reduce((cleaned, [from, to]) => cleaned.replaceAll(from, to), text)
}

const cleanUps = [
  ...['.', '?', '!', ','].map((end) => [` ${end}`, end] as const),
  [" ' ", "'"] as const,
  ...["n't", "'m", "'s", "'ve", "'re"].map((end) => [` ${end}`, end] as const),
]
