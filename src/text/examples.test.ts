import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { placeOf } from './dataset.ts'
import { readExamples, type ReadExamplesOptions } from './examples.ts'
import { loadTokenizer, type Tokenizer } from './tokenizer.ts'

let folder: string
let tokenizer: Tokenizer
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
  tokenizer = await characterTokenizer(folder, true)
})
afterEach(() => rm(folder, { recursive: true }))

/** A tokenizer with one token a letter: a = 3, b = 4, ...; <s> = 1 in front when `bos`, </s> = 2. */
async function characterTokenizer(folder: string, bos: boolean): Promise<Tokenizer> {
  const vocab = Object.fromEntries(Array.from('abcdefghij', (letter, i) => [letter, i + 3]))
  const special = (content: string, id: number): object => ({
    id,
    content,
    special: true,
    normalized: false,
    lstrip: false,
    rstrip: false,
    single_word: false,
  })
  const template = {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [],
    special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
  }
  const json = {
    version: '1.0',
    added_tokens: [special('<unk>', 0), special('<s>', 1), special('</s>', 2)],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: bos ? template : null,
    decoder: { type: 'Fuse' },
    model: { type: 'BPE', vocab: { '<unk>': 0, '<s>': 1, '</s>': 2, ...vocab }, merges: [], unk_token: '<unk>' },
  }
  await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(json))
  await writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify({ eos_token: '</s>' }))
  return loadTokenizer(folder)
}

async function read(
  content: string | Uint8Array,
  options: Partial<ReadExamplesOptions> = {},
): ReturnType<typeof readExamples> {
  const path = join(folder, 'train.jsonl')
  await writeFile(path, content)
  return readExamples({ sources: [{ path, weight: 1 }], tokenizer, maxLength: 6, ...options })
}
const line = (prompt: unknown, completion: unknown): string => `${JSON.stringify({ prompt, completion, extra: 1 })}\n`

describe('where an example is from', () => {
  const golden = fileURLToPath(new URL('../../test/golden/parquet', import.meta.url))
  it('is a row of Parquet, in what is found too', async () => {
    const path = join(golden, 'five-none.parquet')
    const sources = [{ path, weight: 1 }]
    const { examples, summary, runs } = await readExamples({ sources, tokenizer, maxLength: 6 })
    expect(placeOf(examples.at(1)!, summary)).toBe(`${path}, row 2`)
    expect(runs[0]?.unit).toBe('row')
    expect(summary.findings.find(({ kind }) => kind === 'cut')?.places[0]).toBe(`${path}, row 1`)
  })

  it('is said with what is wrong, where records are passed over and none is left', async () => {
    const path = join(folder, 'bad.jsonl')
    await writeFile(path, '{"question":"a"}\n{"messages":[]}\n')
    const sources = [{ path, weight: 1 }]
    await expect(readExamples({ sources, tokenizer, maxLength: 6, skipBadLines: true })).rejects.toThrow(
      `no example left to use (lines: 2 malformed)\n  ${path}:1: of no known form; found "question"\n  ${path}:2: the conversation is empty`,
    )
  })

  it('is a line of a table, the one where the row begins', async () => {
    const path = join(folder, 'a.csv')
    await writeFile(path, 'prompt,completion\n"a\na",b\n\na,b\na,b\n')
    const sources = [{ path, weight: 1 }]
    const { examples, summary } = await readExamples({ sources, tokenizer, maxLength: 6 })
    expect(placeOf(examples.at(1)!, summary)).toBe(`${path}:5`)
    expect(summary.findings).toEqual([{ kind: 'duplicate', count: 1, places: [`${path}:6`] }])
  })
})

describe('readExamples', () => {
  it('labels the completion and EOS, behind BOS and prompt', async () => {
    const { examples, summary } = await read(`\n${line('ab', 'c')}${line('a', '')}`)
    expect(examples.slice().map(({ ids, labelMask, line }) => [[...ids], [...labelMask], line])).toEqual([
      [[1, 3, 4, 5, 2], [0, 0, 0, 1, 1], 2],
      [[1, 3, 2], [0, 0, 1], 3],
    ])
    expect(summary).toMatchObject({ examples: 2, tokens: 8, labelTokens: 3, truncated: 0, dropped: 0, skippedLines: 0 })
  })

  it('cuts the end to maxLength and drops what has no label left', async () => {
    const { examples, summary } = await read(line('abc', 'def') + line('abcde', 'f') + line('ab', 'cd'))
    expect(examples.slice().map(({ ids }) => [...ids])).toEqual([
      [1, 3, 4, 5, 6, 7],
      [1, 3, 4, 5, 6, 2],
    ])
    expect(summary).toMatchObject({ examples: 2, tokens: 12, labelTokens: 5, truncated: 2, dropped: 1 })
  })

  it('never labels the first token', async () => {
    tokenizer = await characterTokenizer(folder, false)
    const { examples, summary } = await read(line('', 'ab') + line('', ''))
    expect(examples.slice().map(({ ids, labelMask }) => [[...ids], [...labelMask]])).toEqual([
      [
        [3, 4, 2],
        [0, 1, 1],
      ],
    ])
    expect(summary.dropped).toBe(1)
  })

  it('collects all malformed lines and shows twenty', async () => {
    const bad = ['{"prompt":', '[1]', '{"prompt":"a"}', '{"completion":"a"}', '{"prompt":"a","completion":7}', '"a"']
    const content = line('a', 'b') + bad.join('\n') + '\n' + 'x\n'.repeat(30) + line('a', 'b')
    const failure = read(content)
    const path = join(folder, 'train.jsonl')
    await expect(failure).rejects.toMatchObject({ code: 'data', hint: expect.stringContaining('--skip-bad-lines') })
    const { message } = (await failure.catch((error: unknown) => error)) as Error
    const lines = message.split('\n')
    expect(lines).toHaveLength(22)
    expect(lines[0]).toBe(`${path}: 36 malformed lines`)
    expect(lines[1]).toMatch(/train.jsonl:2: not valid JSON/)
    expect(lines.slice(2, 7).map((text) => text.replace(`  ${path}`, ''))).toEqual([
      ':3: a list, not a JSON object',
      ':4: "completion" is missing; found "prompt"',
      ':5: "prompt" is missing; found "completion"',
      ':6: "completion" is the number 7, not text',
      ':7: text, not a JSON object',
    ])
    expect(lines[21]).toBe('  ... and 16 more')
    expect((await read(content, { skipBadLines: true })).summary).toMatchObject({ examples: 2, skippedLines: 36 })
  })

  it('refuses a file in which no example is left', async () => {
    await expect(read('')).rejects.toThrow(/no example left to use \(the file is empty\)/)
    await expect(read('x', { skipBadLines: true })).rejects.toThrow('(lines: 1 malformed)')
    await expect(read(line('abcdefgh', 'a'))).rejects.toMatchObject({
      message: expect.stringContaining('1 whose prompt fills maxLength (6 tokens)'),
      hint: expect.stringContaining('--max-length'),
    })
    tokenizer = await characterTokenizer(folder, false)
    await expect(read(line('', ''))).rejects.toMatchObject({
      message: expect.stringContaining('(lines: 1 with neither prompt nor completion)'),
      hint: expect.not.stringContaining('max'),
    })
  })

  it.each([
    [{ messages: [] }, 'the conversation is empty', '--skip-bad-lines'],
    [{ chosen: 'a', rejected: 'b', prompt: 'c' }, 'a preference ("chosen", "rejected")', 'completion: chosen'],
    [{ prompt: 'a', response: 'b' }, '"completion" is missing; found "prompt", "response"', '--skip-bad-lines'],
    [
      { Prompt: 'a', 'completion ': 'b' },
      'of no known form; found "Prompt", "completion "',
      '"prompt" and "completion"',
    ],
    [{}, 'of no known form; found no keys', '"prompt" and "completion"'],
    [{ prompt: [{ role: 'user', content: 'a' }], completion: 'b' }, '"prompt" is chat messages, not text', '--skip'],
    [{ prompt: null, completion: 'b' }, '"prompt" is null, not text', '--skip-bad-lines'],
    [
      { prompt: 'ab\ud83d', completion: 'b' },
      '"prompt" is no valid Unicode: half a surrogate pair, \\ud83d, at character 3',
      '--skip-bad-lines',
    ],
  ])('names what a row is: %j', async (row, problem, hint) => {
    await expect(read(JSON.stringify(row))).rejects.toMatchObject({
      message: expect.stringContaining(problem),
      hint: expect.stringContaining(hint),
    })
    // Among good rows it is a mistake of that row.
    await expect(read(line('a', 'b') + JSON.stringify(row))).rejects.toMatchObject({
      message: expect.stringContaining(`:2: `),
      hint: expect.stringContaining('--skip-bad-lines'),
    })
  })

  it('shows few of many keys, and little of long ones', async () => {
    const row = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`k${i}${'x'.repeat(1000)}`, 1]))
    const failure: unknown = await read(JSON.stringify(row)).catch((error: unknown) => error)
    expect(String(failure)).toContain('(100 keys)')
    expect(String(failure).length).toBeLessThan(700)
  })

  it('refuses a token id the model has no row for', async () => {
    expect((await read(line('a', 'c'), { vocabSize: 6 })).summary.examples).toBe(1)
    await expect(read(line('a', 'b') + line('a', 'd'), { vocabSize: 6 })).rejects.toThrow(
      /train.jsonl:2: token "d" \(id 6\): the model's embedding has 6 rows/,
    )
  })
})

describe('loadTokenizer', () => {
  it('finds prefix and EOS', async () => {
    expect(tokenizer).toMatchObject({ prefix: [1], eosId: 2, suffix: [], changesEnds: false })
    expect((await characterTokenizer(folder, false)).prefix).toEqual([])
  })

  it('parses special tokens inside a text, and decodes with or without them', async () => {
    expect((await tokenizer.encode(['a</s>b', ''])).map((ids) => [...ids])).toEqual([[3, 2, 4], []])
    expect(await tokenizer.decode([[1, 3, 4, 2], []])).toEqual(['ab', ''])
    expect(await tokenizer.decode([[1, 3, 2]], { skipSpecialTokens: false })).toEqual(['<s>a</s>'])
  })

  it('takes EOS from an AddedToken object, then from generation_config.json and config.json', async () => {
    const config = join(folder, 'tokenizer_config.json')
    await writeFile(config, JSON.stringify({ eos_token: { content: '<s>' } }))
    expect((await loadTokenizer(folder)).eosId).toBe(1)
    await writeFile(config, JSON.stringify({ eos_token: null }))
    await expect(loadTokenizer(folder)).rejects.toThrow('no end-of-sequence token')
    await writeFile(join(folder, 'config.json'), JSON.stringify({ eos_token_id: 7 }))
    expect((await loadTokenizer(folder)).eosId).toBe(7)
    await writeFile(join(folder, 'generation_config.json'), JSON.stringify({ eos_token_id: [5, 6] }))
    expect((await loadTokenizer(folder)).eosId).toBe(5)
  })

  it('names what is missing or broken', async () => {
    await writeFile(join(folder, 'tokenizer.json'), '{"model":{}}')
    await expect(loadTokenizer(folder)).rejects.toMatchObject({
      code: 'model',
      message: expect.stringContaining('tokenizer.json'),
    })
    await rm(join(folder, 'tokenizer.json'))
    await expect(loadTokenizer(folder)).rejects.toThrow('has no tokenizer.json')
  })
})
