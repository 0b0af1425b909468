import { readdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Tokenizer as UntypedTokenizer } from '@huggingface/tokenizers'
import { isJsonObject, type JsonObject, messageOf, readJsonObject } from '../formats/json.ts'
import { LowrankError } from '../util/errors.ts'

/** Text to token ids and back, as the model's own `tokenizer.json` says. */
export interface Tokenizer {
  /**
   * Ids of a text, without the special tokens that the tokenizer puts around one. Text that spells a special token
   * (`<|im_end|>`) becomes that token, which is what transformers does by default.
   */
  encode(text: string): number[]
  /** The text of ids; special tokens are left out unless asked for. */
  decode(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string
  /** What the tokenizer puts before a text: BOS for Llama, nothing for many others. */
  readonly prefix: readonly number[]
  /** The id that ends a completion. */
  readonly eosId: number
  /** One more than the highest id it can produce. The model's embedding may be larger (padded) but not smaller. */
  readonly vocabSize: number
  /** Absolute paths of the tokenizer's files, to be copied beside an adapter. */
  readonly files: readonly string[]
}

/** What is used of the package's class: its declarations do not resolve under Node's module rules, so it comes as `any`. */
interface HuggingFaceTokenizer {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: (number | undefined)[]; tokens: string[] }
  decode(ids: number[], options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean }): string
  token_to_id(token: string): number | undefined
  get_vocab(): Map<string, number>
}
const HuggingFaceTokenizer = UntypedTokenizer as new (tokenizer: object, config: object) => HuggingFaceTokenizer

/** Loads the tokenizer of a Hugging Face model folder. Needs `tokenizer.json`; errors have code `model`. */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  const names = await readdir(folder).catch((cause: unknown) => {
    const hint = 'A model folder holds config.json, *.safetensors and tokenizer.json, as the model hub has it.'
    throw new LowrankError('model', `cannot open the folder ${folder}: ${messageOf(cause)}`, { cause, hint })
  })
  const path = join(folder, 'tokenizer.json')
  if (!names.includes('tokenizer.json')) {
    throw new LowrankError('model', `${folder} has no tokenizer.json`, {
      hint: 'Save the fast tokenizer beside the model (in Python: AutoTokenizer.from_pretrained(model).save_pretrained(folder)).',
    })
  }
  const read = (name: string): Promise<JsonObject> =>
    names.includes(name)
      ? readJsonObject(join(folder, name), { code: 'model', maxBytes: maxTokenizerBytes })
      : Promise.resolve({})
  const [json, config] = [await read('tokenizer.json'), await read('tokenizer_config.json')]
  let inner: HuggingFaceTokenizer
  let prefix: number[]
  try {
    inner = new HuggingFaceTokenizer(json, config)
    prefix = prefixOf(inner)
  } catch (cause) {
    throw new LowrankError('model', `${path} cannot be used: ${messageOf(cause)}`, { cause })
  }
  const eosId = eosFrom(inner, config) ?? eosFromIds(await read('generation_config.json'), await read('config.json'))
  if (eosId === undefined) {
    throw new LowrankError('model', `${folder}: no end-of-sequence token found`, {
      hint: 'Set "eos_token" in tokenizer_config.json, or "eos_token_id" in generation_config.json or config.json.',
    })
  }
  let highest = -1
  for (const id of inner.get_vocab().values()) highest = Math.max(highest, id)
  return {
    encode: (text) => encode(inner, text, false),
    decode: (ids, { skipSpecialTokens = true } = {}) =>
      ids.length === 0
        ? ''
        : inner.decode([...ids], {
            skip_special_tokens: skipSpecialTokens,
            clean_up_tokenization_spaces: config['clean_up_tokenization_spaces'] === true,
          }),
    prefix,
    eosId,
    vocabSize: highest + 1,
    files: tokenizerFiles.filter((name) => names.includes(name)).map((name) => resolve(folder, name)),
  }
}

const maxTokenizerBytes = 256 * 2 ** 20

const tokenizerFiles = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'tokenizer.model',
]

function encode(inner: HuggingFaceTokenizer, text: string, addSpecialTokens: boolean): number[] {
  const { ids, tokens } = inner.encode(text, { add_special_tokens: addSpecialTokens })
  const unknown = ids.findIndex((id) => id === undefined)
  if (unknown !== -1) {
    throw new LowrankError('data', `the tokenizer has no token for ${JSON.stringify(tokens[unknown])}`)
  }
  return ids as number[]
}

/** What encoding with special tokens puts before the ids of the same text encoded without. */
function prefixOf(inner: HuggingFaceTokenizer): number[] {
  const bare = encode(inner, 'a', false)
  const full = encode(inner, 'a', true)
  for (let start = 0; start + bare.length <= full.length; start++) {
    if (bare.every((id, i) => full[start + i] === id)) return full.slice(0, start)
  }
  return []
}

/** `eos_token` of tokenizer_config.json: text, or an object with the text in `content`. */
function eosFrom(inner: HuggingFaceTokenizer, config: JsonObject): number | undefined {
  const entry = config['eos_token']
  const text = isJsonObject(entry) ? entry['content'] : entry
  return typeof text === 'string' ? inner.token_to_id(text) : undefined
}

/** The first `eos_token_id`, a number or a list of numbers, that one of the files has. */
function eosFromIds(...configs: JsonObject[]): number | undefined {
  for (const { eos_token_id: entry } of configs) {
    const id: unknown = Array.isArray(entry) ? entry[0] : entry
    if (typeof id === 'number' && Number.isSafeInteger(id) && id >= 0) return id
  }
  return undefined
}
