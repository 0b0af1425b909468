import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { loadTokenizer } from '../../src/text/tokenizer.ts'
import { corpus } from './corpus.ts'
import { expand } from './grammar.ts'
import { modelConfig, sizes } from './settings.ts'
import { tickets } from './tickets.ts'
import { articles } from './words.ts'

const folder = fileURLToPath(new URL('../../examples/quickstart/', import.meta.url))

describe('quickstart data', () => {
  it('chooses, nests and fills in, with the right article and capitals', () => {
    const text = expand(
      '[[hello|hello]|hello], {thing}. it is a {look} thing',
      { thing: ['a egg'] },
      { look: 'odd' },
      () => 0,
    )
    expect(text).toBe('Hello, an egg. It is an odd thing')
    expect(() => expand('{nothing}', {}, {}, () => 0)).toThrow('{nothing} is neither a fact nor a rule')
  })

  it('is what the generator makes today', async () => {
    const all = tickets({ seed: 1, count: sizes.train + sizes.valid }).map((ticket) => `${JSON.stringify(ticket)}\n`)
    expect(await readFile(`${folder}train.jsonl`, 'utf8')).toBe(all.slice(0, sizes.train).join(''))
    expect(await readFile(`${folder}valid.jsonl`, 'utf8')).toBe(all.slice(sizes.train).join(''))
    expect(JSON.parse(await readFile(`${folder}model/config.json`, 'utf8'))).toEqual(modelConfig)
  })

  it('has no ticket twice, and no reply speaks of what its ticket lacks', () => {
    const all = tickets({ seed: 1, count: 880 })
    expect(new Set(all.map(({ prompt }) => prompt)).size).toBe(880)
    const products = new RegExp(`\\w+ (${articles.join('|')})\\b`, 'g')
    for (const { prompt, completion } of all) {
      const [category, reply = ''] = completion.split('\n')
      expect(category).toMatch(/^category: (delivery|billing|returns|account|damaged|cancel|stock)$/)
      for (const number of reply.match(/\d+(-\d+)?/g) ?? []) expect(prompt).toContain(number)
      for (const [product] of reply.matchAll(products)) expect(prompt).toContain(product)
      expect(prompt).toContain(`Ticket from ${/Hi (\w+),/.exec(reply)?.[1] ?? '?'} `)
    }
  })

  it('keeps the form of the task out of the corpus', () => {
    const texts = [...corpus({ seed: 1, documents: 5000 })]
    expect(texts).toHaveLength(5000)
    expect(texts.filter((text) => /category|reply:|ticket/i.test(text))).toEqual([])
    expect(texts.filter((text) => /[[\]{}|]|undefined/.test(text))).toEqual([])
  })

  it('survives the tokenizer', async () => {
    const tokenizer = await loadTokenizer(`${folder}model`)
    expect(await tokenizer.tokenOf(modelConfig.vocab_size - 1)).toBeTypeOf('string')
    expect(await tokenizer.tokenOf(modelConfig.vocab_size)).toBeUndefined()
    expect([tokenizer.eosId, tokenizer.prefix]).toEqual([0, []])
    const texts = [
      ...corpus({ seed: 2, documents: 200 }),
      'Ünïcode 漢字 😀 \t tabs\n\n\n end ',
      "don't 12345 we'll A  B",
    ]
    expect(await tokenizer.decode(await tokenizer.encode(texts))).toEqual(texts)
  })
})
