import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it, test } from 'vitest'
import { loadTokenizer, type LoadTokenizerOptions, type Tokenizer } from './tokenizer.ts'

let folder: string
let opened: Tokenizer[]
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
  opened = []
})
afterEach(async () => {
  for (const tokenizer of opened) tokenizer.close()
  await rm(folder, { recursive: true })
})

const vocab = { '</s>': 0, a: 1, b: 2, ' ': 3, '!': 4, aa: 5 }
const model = { type: 'BPE', vocab, merges: [['a', 'a']] }

/** A model folder with this tokenizer.json, and other files. */
async function load(
  json: object,
  files: Readonly<Record<string, object>> = {},
  options: LoadTokenizerOptions = {},
): Promise<Tokenizer> {
  const all = { 'tokenizer_config.json': { eos_token: '</s>' }, 'tokenizer.json': { model, ...json }, ...files }
  for (const [name, content] of Object.entries(all)) await writeFile(join(folder, name), JSON.stringify(content))
  const tokenizer = await loadTokenizer(folder, options)
  opened.push(tokenizer)
  return tokenizer
}

async function idsOf(tokenizer: Tokenizer, ...texts: string[]): Promise<number[][]> {
  return (await tokenizer.encode(texts)).map((ids) => [...ids])
}

const token = (content: string, id: unknown, more: object = {}): object => ({
  id,
  content,
  special: true,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  ...more,
})
const split = (Regex: string): object => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false })

describe('what is not computed exactly is refused by name', () => {
  const nested = (depth: number): object =>
    depth === 0 ? { type: 'NFC' } : { type: 'Sequence', normalizers: [nested(depth - 1)] }
  test.each<[string, object, string]>([
    ['a section', { tokenizer: {} }, 'tokenizer: is not known; known are version,'],
    [
      'a type',
      { normalizer: { type: 'NFX' } },
      'normalizer: type "NFX" is not supported; supported are BertNormalizer,',
    ],
    ['a type of another section', { decoder: { type: 'NFC' } }, 'decoder: type "NFC" is not supported'],
    [
      'a type within others',
      { pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Digits' }, { type: '__proto__' }] } },
      'pre_tokenizer.pretokenizers[1]: type "__proto__" is not supported',
    ],
    ['no component', { post_processor: [] }, 'post_processor: [] is not a component'],
    ['no list', { decoder: { type: 'Sequence', decoders: {} } }, 'decoder.decoders: {} is not a list'],
    [
      'an option',
      { pre_tokenizer: { type: 'Digits', group: 3 } },
      'pre_tokenizer.group: option of Digits not supported; supported are individual_digits',
    ],
    [
      'an option of none',
      { normalizer: { type: 'NFC', form: 'D' } },
      'normalizer.form: option of NFC not supported; supported are none',
    ],
    [
      'a value',
      { pre_tokenizer: { type: 'Punctuation', behavior: 'Merged' } },
      'pre_tokenizer.behavior: "Merged" is not supported',
    ],
    [
      'an option of an option',
      { normalizer: { type: 'Replace', pattern: { Glob: '*' }, content: '' } },
      'normalizer.pattern',
    ],
    ['dropout', { model: { ...model, dropout: 0.1 } }, 'model.dropout: 0.1 is not supported'],
    ['a length of nothing', { pre_tokenizer: { type: 'FixedLength', length: 0 } }, 'pre_tokenizer.length: 0 is not'],
    ['depth', { normalizer: nested(20) }, 'is nested too deeply'],
    ['a model', { model: { type: 'Char', vocab } }, 'model: type "Char" is not supported; supported are BPE, Unigram,'],
    ['no model', { model: null }, 'model: is missing'],
    [
      'a template without text',
      { post_processor: { type: 'TemplateProcessing', single: [], pair: [] } },
      'must hold the text once',
    ],
    [
      'a template of what is not there',
      {
        post_processor: {
          type: 'TemplateProcessing',
          single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
          special_tokens: {},
        },
      },
      'post_processor.single: "<s>" is none of its special_tokens',
    ],
    ['an id twice', { model: { ...model, vocab: { ...vocab, c: 2 } } }, 'model.vocab: "b" and "c" have the same id 2'],
    [
      'a vocabulary that is a list',
      { model: { ...model, vocab: ['a'] } },
      'model.vocab: ["a"] does not map tokens to ids',
    ],
    [
      'a piece without a score',
      { model: { type: 'Unigram', vocab: [['a']] } },
      'model.vocab[0]: ["a"] is not a token with its score',
    ],
    [
      'an unknown piece',
      { model: { type: 'Unigram', unk_id: 1, vocab: [['a', 0]] } },
      'model.unk_id: 1 is none of the 1 tokens',
    ],
    [
      'a token twice',
      { added_tokens: [token('<x>', 6), token('<x>', 7)] },
      'the added token "<x>" has the id 7, but comes to 6',
    ],
    ['a gap', { added_tokens: [token('<x>', 8)] }, 'the added token "<x>" has the id 8, but comes to 6'],
  ])('%s', async (_, json, says) => {
    const failure = load(json)
    await expect(failure).rejects.toMatchObject({ code: 'model' })
    await expect(failure).rejects.toThrow(`${join(folder, 'tokenizer.json')}: `)
    await expect(failure).rejects.toThrow(says)
  })

  test.each([1e9, 4294967294, 3.7, '12', true, -5, null])('%j as an id, at once', async (id) => {
    const begun = performance.now()
    await expect(load({ added_tokens: [token('<x>', id)] })).rejects.toThrow(
      /added_tokens\[0\]\.id: .* is not supported/,
    )
    await expect(load({ model: { ...model, vocab: { ...vocab, c: id } } })).rejects.toThrow(
      /model\.vocab: .* is not an id of "c"/,
    )
    expect(performance.now() - begun).toBeLessThan(1000)
  })
})

describe('what would end or hold the process', () => {
  it('an expression that takes without end is given up, and the tokenizer goes on', async () => {
    const tokenizer = await load({ pre_tokenizer: split('(a+)+$') })
    const path = join(folder, 'tokenizer.json')
    await expect(tokenizer.encode([`${'a'.repeat(50)}!`])).rejects.toMatchObject({
      code: 'model',
      message: `${path} cannot be used: the tokenizer engine ended (Onig: Regex search error: retry-limit-in-match over)`,
    })
    expect(await idsOf(tokenizer, 'aab')).toEqual([[5, 2]])
  })

  it('a broken table', async () => {
    await expect(load({ normalizer: { type: 'Precompiled', precompiled_charsmap: 'AAAA' } })).rejects.toMatchObject({
      code: 'model',
      message: expect.stringContaining('Cannot parse precompiled_charsmap') as string,
    })
  })

  it('an expression that is none', async () => {
    await expect(load({ pre_tokenizer: split('(a') })).rejects.toThrow(/tokenizer.json cannot be used: .*parenthesis/)
  })

  it('is cancelled within a second', async () => {
    let cancelled = false
    // No single attempt to match takes long, but there is one for each character.
    const tokenizer = await load({ pre_tokenizer: split('a+$') }, {}, { cancelled: () => cancelled })
    const endless = tokenizer.encode([`${'a'.repeat(400_000)}!`])
    const state = await Promise.race([
      endless.then(
        () => 'done',
        () => 'failed',
      ),
      sleep(500, 'computing'),
    ])
    expect(state).toBe('computing')
    const begun = performance.now()
    cancelled = true
    await expect(endless).rejects.toMatchObject({ code: 'cancelled' })
    expect(performance.now() - begun).toBeLessThan(1000)
  })
})

it('starts again after it was closed', async () => {
  const tokenizer = await load({})
  expect(await idsOf(tokenizer, 'aab')).toEqual([[5, 2]])
  tokenizer.close()
  expect(await tokenizer.tokenOf(5)).toBe('aa')
})

it('neither cuts nor pads, whatever the file says', async () => {
  const truncation = { direction: 'Right', max_length: 1, strategy: 'LongestFirst', stride: 0 }
  const padding = {
    strategy: { Fixed: 5 },
    direction: 'Left',
    pad_to_multiple_of: null,
    pad_id: 4,
    pad_type_id: 0,
    pad_token: '!',
  }
  expect(await idsOf(await load({ truncation, padding }), 'ab')).toEqual([[1, 2]])
})

describe('tokens that only tokenizer_config.json knows', () => {
  const flags = { lstrip: false, normalized: false, rstrip: false, single_word: false, special: true }
  const decoder = { 6: { content: '<|im_end|>', ...flags } }

  it('are added', async () => {
    const config = { eos_token: '<|im_end|>', added_tokens_decoder: decoder }
    const tokenizer = await load({}, { 'tokenizer_config.json': config })
    expect(tokenizer.eosId).toBe(6)
    expect(await idsOf(tokenizer, 'a<|im_end|>b')).toEqual([[1, 6, 2]])
    expect(await tokenizer.decode([[1, 6, 2]])).toEqual(['a b'])
  })

  it('have the id that they are said to have', async () => {
    const config = { eos_token: '</s>', added_tokens_decoder: { 9: decoder[6] } }
    await expect(load({}, { 'tokenizer_config.json': config })).rejects.toThrow('has the id 9, but comes to 6')
  })

  it.each([{ x: { content: '<x>' } }, { 6: 'x' }, { 6: { content: 7 } }, []])('%j is none', async (added) => {
    const config = { eos_token: '</s>', added_tokens_decoder: added }
    await expect(load({}, { 'tokenizer_config.json': config })).rejects.toThrow('added_tokens_decoder')
  })
})

describe('EOS', () => {
  it('that is named but not there is an error, not another one', async () => {
    const files = { 'tokenizer_config.json': { eos_token: '<|im_end|>' }, 'config.json': { eos_token_id: 1 } }
    await expect(load({}, files)).rejects.toThrow(
      `${join(folder, 'tokenizer_config.json')}: eos_token: "<|im_end|>" is not a token of the tokenizer`,
    )
  })

  it.each([99, -1, '0', 1.5, [99]])('%j is an error that names its file', async (id) => {
    const files = { 'tokenizer_config.json': {}, 'generation_config.json': { eos_token_id: id } }
    await expect(load({}, files)).rejects.toThrow(
      /generation_config.json: eos_token_id: .* is not an id of the tokenizer/,
    )
  })
})
