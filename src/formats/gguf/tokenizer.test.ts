import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkTokenizerJson } from '../../text/tokenizer/check.ts'
import { loadTokenizer } from '../../text/tokenizer.ts'
import type { JsonObject } from '../json.ts'
import { openModelFiles } from '../model-files.ts'
import { preTokenizers } from './pre-tokenizers.ts'
import type { TypedValue } from './values.ts'
import { writeGguf } from './writer.fixture.ts'

let folder: string
let path: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
  path = join(folder, 'model.gguf')
})
afterAll(() => rm(folder, { recursive: true }))

type Metadata = Readonly<Record<string, TypedValue | undefined>>

function write(metadata: Metadata): string {
  const entries = Object.entries(metadata).filter((one): one is [string, TypedValue] => one[1] !== undefined)
  return writeGguf(path, { metadata: Object.fromEntries(entries) })
}

async function tokenizerOf(metadata: Metadata): Promise<JsonObject> {
  const json = await (await openModelFiles(write(metadata))).json('tokenizer.json')
  checkTokenizerJson(json, path)
  return json
}

const texts = (...values: readonly string[]): TypedValue => ['list', 'text', values]

const bytes: Metadata = {
  'general.architecture': ['text', 'qwen2'],
  'tokenizer.ggml.model': ['text', 'gpt2'],
  'tokenizer.ggml.pre': ['text', 'smollm'],
  'tokenizer.ggml.tokens': texts('a', 'b', 'Ġ', 'ab', 'Ġab', '1', '<|end|>', '<think>', '[PAD8]', '2'),
  'tokenizer.ggml.token_type': ['list', 'i32', [1, 1, 1, 1, 1, 1, 3, 4, 5, 1]],
  'tokenizer.ggml.merges': texts('a b', 'Ġ ab'),
  'tokenizer.ggml.eos_token_id': ['u32', 6],
}

/** Characters with scores: the third token is made of the other two. */
const pieces: Metadata = {
  'general.architecture': ['text', 'llama'],
  'tokenizer.ggml.model': ['text', 'llama'],
  'tokenizer.ggml.tokens': texts(
    '<unk>',
    '<s>',
    '</s>',
    '<0x21>',
    '\u2581a',
    '\u2581',
    'a',
    'aa',
    'aaa',
    '  ',
    '\u2581\u2581a',
  ),
  'tokenizer.ggml.token_type': ['list', 'i32', [2, 3, 3, 6, 1, 1, 1, 1, 1, 4, 1]],
  'tokenizer.ggml.scores': ['list', 'f32', [0, 0, 0, 0, -1, -2, -3, -0.5, -4, -1000, -5]],
}

test('bytes: as the tokenizer of the hub would be', async () => {
  expect(await tokenizerOf(bytes)).toMatchObject({
    added_tokens: [
      { id: 6, content: '<|end|>', special: true, normalized: false },
      { id: 7, content: '<think>', special: false, normalized: false },
    ],
    normalizer: null,
    pre_tokenizer: { pretokenizers: [{ type: 'Digits' }, { type: 'ByteLevel', use_regex: true }] },
    post_processor: null,
    model: {
      type: 'BPE',
      // A row without a token is left out; others keep their ids.
      vocab: { a: 0, b: 1, Ġ: 2, ab: 3, Ġab: 4, 1: 5, '<|end|>': 6, '<think>': 7, 2: 9 },
      merges: [
        ['a', 'b'],
        ['Ġ', 'ab'],
      ],
    },
  })
  const tokenizer = await loadTokenizer(path)
  const ids = await tokenizer.encode(['ab ab1<|end|> ab<think>2'])
  expect([...ids[0]!]).toEqual([3, 4, 5, 6, 4, 7, 9])
  expect(await tokenizer.decode(ids)).toEqual(['ab ab1 ab<think>2'])
  expect([tokenizer.eosId, tokenizer.prefix]).toEqual([6, []])
  tokenizer.close()
  // Made again where the process starts again.
  expect([...(await tokenizer.encode(['b']))[0]!]).toEqual([1])
  tokenizer.close()
})

test('pieces: the best merges first, spaces as marks, tokens of users before all', async () => {
  const json = await tokenizerOf(pieces)
  expect(json).toMatchObject({
    normalizer: { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '\u2581' }, { type: 'Replace' }] },
    pre_tokenizer: null,
    model: { unk_token: '<unk>', byte_fallback: true, fuse_unk: true },
  })
  expect((json['model'] as JsonObject)['merges']).toEqual([
    ['\u2581', '\u2581'],
    ['a', 'a'],
    ['\u2581', 'a'],
    ['aa', 'a'],
    ['a', 'aa'],
    ['\u2581\u2581', 'a'],
    ['\u2581', '\u2581a'],
  ])
  const tokenizer = await loadTokenizer(path)
  const [ids, byte] = await tokenizer.encode(['aaa a', '!'])
  expect([...ids!]).toEqual([5, 8, 4])
  expect([...byte!]).toEqual([5, 3])
  expect(await tokenizer.decode([ids!])).toEqual(['aaa a'])
  expect([tokenizer.prefix, tokenizer.suffix, tokenizer.eosId, tokenizer.changesEnds]).toEqual([[1], [], 2, true])
  tokenizer.close()
})

test('what is put before and behind a text, and no space before it', async () => {
  const changes: Metadata = {
    'tokenizer.ggml.add_space_prefix': ['bool', false],
    'tokenizer.ggml.add_bos_token': ['bool', false],
    'tokenizer.ggml.add_eos_token': ['bool', true],
  }
  await tokenizerOf({ ...pieces, ...changes })
  const tokenizer = await loadTokenizer(path)
  expect([...(await tokenizer.encode(['aa']))[0]!]).toEqual([7])
  expect([tokenizer.prefix, tokenizer.suffix, tokenizer.changesEnds]).toEqual([[], [2], false])
  tokenizer.close()
})

test('the tokens of Phi 3 take the space behind them', async () => {
  const { added_tokens: added } = await tokenizerOf({ ...pieces, 'general.architecture': ['text', 'phi3'] })
  expect((added as JsonObject[]).map(({ content, rstrip }) => [content, rstrip])).toEqual([
    ['<unk>', false],
    ['<s>', false],
    ['</s>', true],
    ['\u2581\u2581', true],
  ])
})

test('files beside it', async () => {
  const files = await openModelFiles(
    write({
      ...bytes,
      'tokenizer.ggml.bos_token_id': ['u32', 0],
      'tokenizer.ggml.eot_token_id': ['u32', 7],
      'tokenizer.chat_template': ['text', '{{ x }}'],
    }),
  )
  expect(files.names).toEqual(['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json'])
  expect(await files.json('tokenizer_config.json')).toEqual({
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: 'a',
    eos_token: '<|end|>',
    clean_up_tokenization_spaces: false,
    chat_template: '{{ x }}',
  })
  expect(await files.json('generation_config.json')).toEqual({ bos_token_id: 0, eos_token_id: [6, 7] })
  const { files: small } = await files.small(['tokenizer_config.json', 'vocab.json'])
  expect([...small.keys()]).toEqual(['tokenizer_config.json'])
  const without = await openModelFiles(write({ 'general.architecture': ['text', 'llama'] }))
  expect(without.names).toEqual(['config.json', 'generation_config.json'])
  await expect(loadTokenizer(path)).rejects.toThrow(`${path} has no tokenizer`)
})

test.each(Object.keys(preTokenizers))('texts cut as for %s: every component is known to the engine', async (name) => {
  await tokenizerOf({ ...bytes, 'tokenizer.ggml.pre': ['text', name] })
  const tokenizer = await loadTokenizer(path)
  const text = "ab 1a\n\n  b'S aB"
  expect(await tokenizer.decode(await tokenizer.encode([text]))).toHaveLength(1)
  tokenizer.close()
})

describe.each<
  [base: string, metadata: Metadata, cases: readonly (readonly [string, TypedValue | undefined, string])[]]
>([
  [
    'bytes',
    bytes,
    [
      ['model', ['text', 'bert'], 'metadata tokenizer.ggml.model "bert" is not supported (supported: gpt2, llama)'],
      ['model', undefined, 'the metadata has no tokenizer.ggml.model'],
      ['pre', ['text', 'default'], 'metadata tokenizer.ggml.pre "default" is not supported (supported: gpt-2, '],
      ['pre', undefined, 'the metadata has no tokenizer.ggml.pre'],
      ['merges', undefined, 'the metadata has no tokenizer.ggml.merges'],
      ['merges', texts('a b', 'ab'), 'metadata tokenizer.ggml.merges[1] is "ab", which is not a pair'],
      ['tokens', texts('a', 'b', 'a'), 'metadata tokenizer.ggml.tokens has "a" twice, as 0 and 2'],
      ['tokens', ['list', 'u32', [1]], 'a list of texts is expected'],
      ['token_type', ['list', 'i32', [1]], 'metadata tokenizer.ggml.token_type has 1 entries, but there are 10 tokens'],
      ['add_bos_token', ['text', 'yes'], 'true or false is expected'],
    ],
  ],
  [
    'pieces',
    pieces,
    [
      ['scores', ['list', 'f32', [1, 2]], 'metadata tokenizer.ggml.scores has 2 entries, but there are 11 tokens'],
      ['scores', ['list', 'f32', new Array(11).fill(-1000)], 'one score for all tokens'],
      ['bos_token_id', ['u32', 11], 'metadata tokenizer.ggml.bos_token_id is 11, but there are 11 tokens'],
      ['bos_token_id', ['i32', -1], 'a count is expected'],
      ['remove_extra_whitespaces', ['bool', true], 'remove_extra_whitespaces is true, which is not supported'],
    ],
  ],
])('%s', (_, metadata, cases) => {
  test.each(cases)('%s %j is refused', async (key, value, message) => {
    await expect(tokenizerOf({ ...metadata, [`tokenizer.ggml.${key}`]: value })).rejects.toMatchObject({
      code: 'model',
      message: expect.stringContaining(message) as string,
    })
  })
})
