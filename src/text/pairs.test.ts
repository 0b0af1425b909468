import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tokenizePrompts, tokenizeRows } from './pairs.ts'
import { loadTokenizer, type Tokenizer } from './tokenizer.ts'

let root: string
const opened: Tokenizer[] = []
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'lowrank-'))
})
afterAll(async () => {
  for (const tokenizer of opened) tokenizer.close()
  await rm(root, { recursive: true })
})

const tokens = ['<s>', '</s>', '▁', ' ', 'a', 'b', ':', '▁a', '▁b', ' a', ' b', 'ab']
const [bos, eos, mark, space, a, b, colon, markA, markB, , , ab] = tokens.keys()
const merges = ['▁ a', '▁ b', '  a', '  b', 'a b'].map((pair) => [pair.slice(0, -2), pair.at(-1)])

/** A tokenizer that joins a space, or the mark of one, with the letter behind it, and `ab`; with BOS before a text. */
async function load(json: object): Promise<Tokenizer> {
  const folder = await mkdtemp(join(root, 'model-'))
  const special = { special: true, single_word: false, lstrip: false, rstrip: false, normalized: false }
  const whole = {
    added_tokens: ['<s>', '</s>'].map((content, id) => ({ id, content, ...special })),
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [],
      special_tokens: { '<s>': { id: '<s>', ids: [bos], tokens: ['<s>'] } },
    },
    model: { type: 'BPE', vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges },
    ...json,
  }
  await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(whole))
  await writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify({ eos_token: '</s>' }))
  const tokenizer = await loadTokenizer(folder)
  opened.push(tokenizer)
  return tokenizer
}

/** Ids before and from the border. */
async function rowOf(tokenizer: Tokenizer, prompt: string, completion: string): Promise<number[][]> {
  const [row] = await tokenizeRows(tokenizer, [{ prompt, completion }])
  return [[...row!.ids.subarray(0, row!.border)], [...row!.ids.subarray(row!.border)]]
}

const replace = { type: 'Replace', pattern: { String: ' ' }, content: '▁' }
const legacy = { normalizer: { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '▁' }, replace] } }
const metaspace = (prepend_scheme: string): object => ({
  pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme, split: false },
})

describe.each([
  ['Prepend', legacy],
  ['Metaspace first', metaspace('first')],
  ['Metaspace always', metaspace('always')],
  ['Metaspace as it is by default', { pre_tokenizer: { type: 'Metaspace', replacement: '▁', split: false } }],
])('a tokenizer that puts a space before a text: %s', (_, json) => {
  it('puts none between prompt and completion', async () => {
    const tokenizer = await load(json)
    expect(await rowOf(tokenizer, 'a:', 'b')).toEqual([
      [bos, markA, colon],
      [b, eos],
    ])
    expect(await rowOf(tokenizer, 'a:', ' b')).toEqual([
      [bos, markA, colon],
      [markB, eos],
    ])
    expect(await rowOf(tokenizer, '', 'b')).toEqual([[bos], [markB, eos]])
    expect(await rowOf(tokenizer, 'a:', '')).toEqual([[bos, markA, colon], [eos]])
  })

  it('learns the token that joins both from the prompt without it', async () => {
    const tokenizer = await load(json)
    expect(await rowOf(tokenizer, 'a: ', 'b')).toEqual([
      [bos, markA, colon],
      [markB, eos],
    ])
    expect(await rowOf(tokenizer, ':a', 'b')).toEqual([
      [bos, mark, colon],
      [ab, eos],
    ])
  })
})

describe.each([
  ['without', {}],
  ['of bytes', { pre_tokenizer: { type: 'CharDelimiterSplit', delimiter: '|' } }],
  ['Metaspace never', metaspace('never')],
])('a tokenizer that leaves the ends of a text alone: %s', (name, json) => {
  it('tokenizes prompt and completion apart', async () => {
    const tokenizer = await load(json)
    const spaces = name === 'Metaspace never' ? mark : space
    expect(await rowOf(tokenizer, ':a', 'b')).toEqual([
      [bos, colon, a],
      [b, eos],
    ])
    expect(await rowOf(tokenizer, ': ', 'b')).toEqual([
      [bos, colon, spaces],
      [b, eos],
    ])
  })
})

it.each([
  ['cut', { normalizer: { type: 'Strip', strip_left: true, strip_right: true } }, 'a :b'],
  ['replaced', { normalizer: { type: 'Replace', pattern: { Regex: '^ ' }, content: '' } }, 'a: b'],
])('a space at the border that would be %s is kept', async (_, json, text) => {
  const tokenizer = await load(json)
  const [prompt, completion] = text.startsWith('a :') ? ['a ', ':b'] : ['a:', ' b']
  const [before, after] = await rowOf(tokenizer, prompt!, completion!)
  expect([...before!, ...after!].slice(1, -1)).toEqual([...(await tokenizer.encode([text]))[0]!])
})

describe('BOS and EOS that a text has already', () => {
  it('are not put there again', async () => {
    const tokenizer = await load({})
    expect(await rowOf(tokenizer, '<s>a', 'b</s>')).toEqual([
      [bos, a],
      [b, eos],
    ])
    expect(await rowOf(tokenizer, '', '<s>b</s>')).toEqual([[], [bos, b, eos]])
    expect((await tokenizePrompts(tokenizer, ['<s>a'])).map((ids) => [...ids])).toEqual([[bos, a]])
  })

  it('count only where they belong', async () => {
    const tokenizer = await load({})
    expect(await rowOf(tokenizer, 'a</s>', '')).toEqual([[bos, a, eos], [eos]])
    expect(await rowOf(tokenizer, 'a<s>', '</s>b')).toEqual([
      [bos, a, bos],
      [eos, b, eos],
    ])
    expect((await tokenizePrompts(tokenizer, ['a', 'b'])).map((ids) => [...ids])).toEqual([
      [bos, a],
      [bos, b],
    ])
  })

  it('an empty prompt is continued from something', async () => {
    expect((await tokenizePrompts(await load({}), [''])).map((ids) => [...ids])).toEqual([[bos]])
    expect((await tokenizePrompts(await load({ post_processor: null }), [''])).map((ids) => [...ids])).toEqual([[eos]])
  })
})
