import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { preTokenizers } from '../../formats/gguf/pre-tokenizers.ts'
import type { JsonObject } from '../../formats/json.ts'
import { stream, uniform } from '../../util/random.ts'
import { loadTokenizer, type Tokenizer } from '../tokenizer.ts'
import type { AddedToken } from './check.ts'
import { cutsOf } from './cuts.ts'
import { Memo } from './memo.js'

const work = mkdtempSync(join(tmpdir(), 'lowrank-memo-'))
afterAll(() => rmSync(work, { recursive: true }))

const flags = { special: true, single_word: false, lstrip: false, rstrip: false, normalized: false }
const added = (content: string, id: number, more: Partial<AddedToken> = {}): AddedToken & { id: number } => ({
  id,
  content,
  ...flags,
  ...more,
})

/** A character of each kind that expressions tell apart, and some that they do not. */
const characters = Array.from('aBbsté\u00ffб12½,.\'"/-<>\u2581 \n\r\t\u00a0\u0301日😀ſ')

/** Bytes as byte-level vocabularies spell them. */
function spelled(text: string): string[] {
  const visible = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
  const bytes = Array.from({ length: 256 }, (_, byte) => byte)
  const hidden = bytes.filter((byte) => !visible(byte))
  return Array.from(Buffer.from(text), (byte) =>
    String.fromCodePoint(visible(byte) ? byte : 256 + hidden.indexOf(byte)),
  )
}

/** Every two of these merge, whatever they are: where a text is cut in another way, other ones do. */
function pairsOf(letters: readonly string[], allowed: (pair: string) => boolean = () => true): JsonObject {
  const merges = letters.flatMap((a) => letters.filter((b) => allowed(a + b)).map((b) => [a, b]))
  const tokens = ['</s>', ...new Set([...letters, ...merges.map((pair) => pair.join(''))])]
  return { type: 'BPE', vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges }
}

const byteLetters = [...new Set(characters.flatMap(spelled))]
const gemma: JsonObject = {
  normalizer: { type: 'Replace', pattern: { String: ' ' }, content: '\u2581' },
  pre_tokenizer: null,
  model: {
    ...pairsOf(
      ['\u2581', ...characters.filter((one) => one !== ' ' && one !== '\u2581')],
      (pair) => !/^[^\u2581]\u2581/u.test(pair),
    ),
    unk_token: '</s>',
    fuse_unk: true,
  },
}
const tokenizers: Record<string, JsonObject> = {
  ...Object.fromEntries(
    Object.entries(preTokenizers).map(([name, { normalizer, preTokenizer, ignoreMerges }]) => [
      name,
      { normalizer, pre_tokenizer: preTokenizer, model: { ...pairsOf(byteLetters), ignore_merges: ignoreMerges } },
    ]),
  ),
  gemma,
}
// Several names have the same.
const distinct = Object.entries(tokenizers).filter(
  ([, one], i, all) => all.findIndex(([, other]) => JSON.stringify(other) === JSON.stringify(one)) === i,
)

async function load(json: JsonObject, more: readonly AddedToken[]): Promise<Tokenizer> {
  const folder = mkdtempSync(join(work, 'model-'))
  const { vocab } = json['model'] as { readonly vocab: object }
  const first = Object.keys(vocab).length
  const tokens = [added('<t>', 0), added('<t>s', 0), ...more].map((one, i) => ({ ...one, id: first + i }))
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify({ ...json, added_tokens: tokens }))
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify({ eos_token: '</s>' }))
  return loadTokenizer(folder)
}

/** Texts and what of them is marked; some parts come again and again. */
function randomTexts(seed: number, count: number): { text: string; spans: { start: number; end: number }[] }[] {
  const parts = [...characters, ' ', ' ', ' ', '\n', 'ab', 'Ba', ' sat', "'s", ' 12', '<t>', '<t>s', '<t', '  ', '\n\n']
  return Array.from({ length: count }, (_, i) => {
    const draws = uniform(stream(seed, 'text', i), 64)
    const length = 1 + Math.floor(draws[0]! * 40)
    const text = Array.from(draws.subarray(1, 1 + length), (draw) => parts[Math.floor(draw * parts.length)]!).join('')
    const places = Array.from(draws.subarray(50, 54), (draw) => Math.floor(draw * (text.length + 1))).sort(
      (a, b) => a - b,
    )
    // A place within a character is none.
    const [a, b, c, d] = places.map((at) => ((text.codePointAt(at - 1) ?? 0) > 0xffff ? at + 1 : at)) as [
      number,
      number,
      number,
      number,
    ]
    return {
      text,
      spans: [
        { start: a, end: b },
        { start: c, end: d },
      ],
    }
  })
}

describe.each(distinct)('%s', (_, json) => {
  test('parts that are remembered have the tokens, and the marks, of the whole', async () => {
    expect(cutsOf(json, [added('<t>', 0)])).toMatchObject({ tokens: ['<t>'] })
    const cut = await load(json, [])
    // One that takes blanks with it could be cut off from them.
    const whole = await load(json, [added('<none>', 0, { lstrip: true })])
    for (let seed = 0; seed < 4; seed++) {
      const texts = randomTexts(seed, 1500)
      const [found, expected] = [await cut.encodeMarked(texts), await whole.encodeMarked(texts)]
      const wrong = texts.findIndex((_, i) => found[i]!.join() !== expected[i]!.join())
      expect(wrong === -1 ? undefined : [texts[wrong], found[wrong], expected[wrong]]).toBeUndefined()
    }
    cut.close()
    whole.close()
  })
})

describe('a tokenizer is not cut', () => {
  const json = tokenizers['llama-bpe']!
  const split = { type: 'Split', pattern: { Regex: '\\w+' }, behavior: 'Isolated', invert: false }
  test.each<[string, JsonObject, AddedToken[]]>([
    ['with words of its own', { ...json, pre_tokenizer: split }, []],
    ['with a space before each text', { ...json, pre_tokenizer: { type: 'ByteLevel', add_prefix_space: true } }, []],
    ['that changes characters', { ...json, normalizer: { type: 'NFKC' } }, []],
    ['that is no BPE', { ...json, model: { type: 'Unigram', vocab: [] } }, []],
    ['whose tokens take blanks with them', json, [added('<x>', 1, { rstrip: true })]],
    ['whose tokens are words', json, [added('x', 1, { single_word: true })]],
    ['whose tokens have a blank', json, [added('an end', 1)]],
    ['that says two things of a token', json, [added('<x>', 1), added('<x>', 1, { normalized: true })]],
    [
      'without a token for what it does not know',
      { ...gemma, model: { ...(gemma['model'] as object), unk_token: null } },
      [],
    ],
    [
      'whose merges go across spaces',
      { ...gemma, model: { ...(gemma['model'] as object), vocab: { '\u2581': 0, 'a\u2581b': 1 } } },
      [],
    ],
  ])('%s', (_, changed, tokens) => {
    expect(cutsOf(changed, tokens)).toBeUndefined()
  })
})

test('what came before is not asked for again, and asked for again once too much came', async () => {
  let asked = 0
  const memo = new Memo(
    async (parts) => {
      asked += parts.length
      return parts.map(({ text }) => Int32Array.from(text, (one) => one.codePointAt(0)!))
    },
    { words: true, tokens: [] },
  )
  const texts = [{ text: 'one two, one two', spans: [] }]
  const [ids] = await memo.encode(texts)
  expect(String.fromCodePoint(...ids!)).toBe('one two, one two')
  expect(asked).toBe(4)
  expect(await memo.encode(texts)).toEqual([ids])
  expect(asked).toBe(4)
  const many = Array.from({ length: 300_000 }, (_, i) => `${i} `).join('')
  const [all] = await memo.encode([{ text: many, spans: [] }])
  expect(Buffer.from(all!).toString()).toBe(many)
  asked = 0
  expect(await memo.encode(texts)).toEqual([ids])
  expect(asked).toBe(4)
})
