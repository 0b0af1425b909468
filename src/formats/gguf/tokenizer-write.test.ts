import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { isJsonObject, type JsonObject } from '../json.ts'
import { generationConfigOf } from './config.ts'
import { GgufFile } from './file.ts'
import { preTokenizerName, preTokenizers } from './pre-tokenizers.ts'
import { tokenizerConfigOf, tokenizerOf } from './tokenizer.ts'
import { type GivenTokenizer, tokenizerMetadata } from './tokenizer-write.ts'
import { writeGguf } from './writer.fixture.ts'

/*
 * What is written of a tokenizer is read as the same tokenizer: by the same tables, the other way round.
 */

const folder = await mkdtemp(join(tmpdir(), 'lowrank-tokenizer-'))
afterAll(() => rm(folder, { recursive: true }))

/** Writes the tokenizer, and reads it as that of a model. */
async function readAgain(given: GivenTokenizer): Promise<{ json: JsonObject; config: JsonObject; ends: unknown }> {
  const path = writeGguf(join(folder, 'tokenizer.gguf'), {
    metadata: { 'general.architecture': ['text', 'llama'], ...tokenizerMetadata(given) },
  })
  const file = await GgufFile.open(path)
  try {
    return {
      json: tokenizerOf(file),
      config: tokenizerConfigOf(file),
      ends: generationConfigOf(file)['eos_token_id'],
    }
  } finally {
    await file.close()
  }
}

const added = (id: number, content: string, special: boolean): JsonObject => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special,
})

const byteLevelJson: JsonObject = {
  version: '1.0',
  added_tokens: [added(6, '<|end|>', true), added(7, '<think>', false)],
  normalizer: null,
  pre_tokenizer: preTokenizers['smollm']!.preTokenizer,
  post_processor: null,
  model: {
    type: 'BPE',
    ignore_merges: false,
    vocab: { a: 0, b: 1, Ġ: 2, ab: 3, Ġab: 4, 1: 5, 2: 9 },
    merges: [
      ['a', 'b'],
      ['Ġ', 'ab'],
    ],
  },
}

const byteLevel: GivenTokenizer = {
  json: byteLevelJson,
  path: 'tokenizer.json',
  addedTokens: new Map([
    ['<|end|>', 6],
    ['<think>', 7],
  ]),
  specialTokens: ['<|end|>'],
  roles: { bos_token: '<|end|>', eos_token: '<|end|>' },
  prefix: [],
  suffix: [],
  ends: [6, 7, 5],
  rows: 12,
  templates: new Map([
    ['default', '{{ messages }}'],
    ['tools', '{{ tools }}'],
  ]),
}

const mark = '\u2581'
const marks = { type: 'Replace', pattern: { String: ' ' }, content: mark }
const pieces: GivenTokenizer = {
  ...byteLevel,
  json: {
    ...byteLevelJson,
    added_tokens: [
      added(0, '<unk>', true),
      added(1, '<s>', true),
      added(2, '</s>', true),
      added(9, mark + mark, false),
    ],
    normalizer: { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: mark }, marks] },
    pre_tokenizer: null,
    model: {
      type: 'BPE',
      byte_fallback: true,
      unk_token: '<unk>',
      vocab: {
        '<unk>': 0,
        '<s>': 1,
        '</s>': 2,
        '<0x21>': 3,
        [`${mark}a`]: 4,
        [mark]: 5,
        a: 6,
        aa: 7,
        aaa: 8,
        [mark + mark]: 9,
      },
      // Spaces of users first, then by the order of the list.
      merges: [`${mark} ${mark}`, 'a a', `${mark} a`, 'aa a', 'a aa'],
    },
  },
  addedTokens: new Map([
    ['<unk>', 0],
    ['<s>', 1],
    ['</s>', 2],
    [mark + mark, 9],
  ]),
  specialTokens: ['<unk>', '<s>', '</s>'],
  roles: { bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>' },
  prefix: [1],
  ends: [2],
  rows: 10,
}

test('bytes as letters: vocabulary, merges, added tokens, roles, ends, templates', async () => {
  const { json, config, ends } = await readAgain(byteLevel)
  const given = byteLevelJson['model'] as JsonObject
  expect(json['model']).toMatchObject({
    vocab: { ...(given['vocab'] as object), '<|end|>': 6, '<think>': 7 },
    merges: given['merges'],
  })
  expect(json['added_tokens']).toEqual(byteLevelJson['added_tokens'])
  expect(json['post_processor']).toBeNull()
  expect(config).toMatchObject({ eos_token: '<|end|>', bos_token: '<|end|>', chat_template: '{{ messages }}' })
  expect(ends).toEqual([6, 7, 5])
  expect(tokenizerMetadata(byteLevel)).toMatchObject({
    'tokenizer.chat_templates': ['list', 'text', ['tools']],
    'tokenizer.chat_template.tools': ['text', '{{ tools }}'],
    'tokenizer.ggml.token_type': ['list', 'i32', Int32Array.of(1, 1, 1, 1, 1, 1, 3, 4, 5, 1, 5, 5)],
  })
})

test('pieces: scores for merges, of which the same merges come again', async () => {
  const { json } = await readAgain(pieces)
  const { normalizer, pre_tokenizer: cut, model } = json
  expect(normalizer).toEqual(pieces.json['normalizer'])
  expect(cut).toBeNull()
  const wanted = (pieces.json['model'] as JsonObject)['merges'] as string[]
  expect((model as JsonObject)['merges']).toEqual(wanted.map((merge) => merge.split(' ')))
  expect((model as JsonObject)['vocab']).toEqual((pieces.json['model'] as JsonObject)['vocab'])
  expect(json['post_processor']).toMatchObject({ single: [{ SpecialToken: { id: '<s>' } }, { Sequence: { id: 'A' } }] })
})

test.each<[string, unknown, unknown, boolean]>([
  ['no space before a text', marks, null, false],
  [
    'no space before a text, as Gemma says it',
    marks,
    { type: 'Split', pattern: { String: ' ' }, behavior: 'MergedWithPrevious', invert: false },
    false,
  ],
  [
    'a space, as newer files say it',
    null,
    { type: 'Metaspace', replacement: mark, prepend_scheme: 'first', split: false },
    true,
  ],
  [
    'none, as newer files say it',
    null,
    { type: 'Metaspace', replacement: mark, prepend_scheme: 'never', split: false },
    false,
  ],
])('pieces: %s', (_, normalizer, cut, space) => {
  const json = { ...pieces.json, normalizer, pre_tokenizer: cut }
  expect(tokenizerMetadata({ ...pieces, json })).toMatchObject({ 'tokenizer.ggml.add_space_prefix': ['bool', space] })
})

describe.each(Object.entries(preTokenizers))('cut as %s', (_, { normalizer, preTokenizer, ignoreMerges }) => {
  test('the name leads back to the same', () => {
    const name = preTokenizerName(normalizer, preTokenizer, ignoreMerges)
    expect(name).toBeDefined()
    expect(preTokenizers[name!]).toEqual(expect.objectContaining({ normalizer, preTokenizer, ignoreMerges }))
  })
})

test('other spellings of one expression', () => {
  const split = (Regex: string, options: object): JsonObject => ({
    type: 'Sequence',
    pretokenizers: [
      { type: 'Split', pattern: { Regex }, ...options },
      { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false },
    ],
  })
  // As Phi 4 and OLMo 2 have it.
  const possessive = String.raw`'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`
  expect(preTokenizerName(null, split(possessive, { behavior: 'Removed', invert: true }), false)).toBe('dbrx')
  expect(preTokenizerName(null, split(possessive, { behavior: 'Removed', invert: false }), false)).toBeUndefined()
})

describe('refused, since llama.cpp would make other tokens:', () => {
  const changed = (section: string, value: unknown): GivenTokenizer => ({
    ...byteLevel,
    json: { ...byteLevelJson, [section]: value },
  })
  test.each<[string, GivenTokenizer, RegExp]>([
    ['another kind', changed('model', { type: 'Unigram', vocab: [] }), /a tokenizer of type "Unigram"/],
    ['another normalizer', changed('normalizer', { type: 'Lowercase' }), /texts are cut in a way/],
    ['another expression', changed('pre_tokenizer', { type: 'Whitespace' }), /texts are cut in a way/],
    [
      'pieces that are cut',
      { ...pieces, json: { ...pieces.json, pre_tokenizer: { type: 'Whitespace' } } },
      /does not know/,
    ],
    ['a token before a text', { ...byteLevel, prefix: [3] }, /\[3\] is put before a text, which is not its BOS/],
    ['a token behind a text', { ...byteLevel, suffix: [3] }, /\[3\] is put behind a text/],
    ['no end', { ...byteLevel, ends: [] }, /end-of-sequence token undefined/],
  ])('%s', (_, given, message) => {
    expect(() => tokenizerMetadata(given)).toThrow(message)
  })
})

test('a row for each of the embedding, and no more', () => {
  const metadata = tokenizerMetadata({ ...byteLevel, rows: 7, ends: [6] })
  const [, , tokens] = metadata['tokenizer.ggml.tokens'] as [string, string, string[]]
  expect(tokens).toEqual(['a', 'b', 'Ġ', 'ab', 'Ġab', '1', '<|end|>'])
  expect(isJsonObject(metadata)).toBe(true)
})
