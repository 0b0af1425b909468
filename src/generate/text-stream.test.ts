import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.ts'
import { stream, uniform } from '../util/random.ts'
import { TextStream } from './text-stream.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const goldens = join(root, 'test/golden/tokenizers')
const work = await mkdtemp(join(tmpdir(), 'lowrank-stream-'))
afterAll(() => rm(work, { recursive: true }))

interface Golden {
  readonly tokenizer: object
  readonly config: object
  readonly ids: readonly (readonly number[])[]
}

const texts = [
  'Hello, world!  Two  spaces,\ttab\n\nand lines \n',
  ' a text that begins with a space',
  '👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 🇩🇪🇫🇷, 👍🏽 and 🫱🏻‍🫲🏿',
  'e\u0301 a\u0308 n\u0303 \u1e9b\u0323 Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢',
  '日本語のテキスト、漢字と仮名。한국어 中文𠮷𠀋',
  'हिन्दी में लिखा हुआ பாடம் ไทย العربية עברית',
  '\u200b\u200d\ufeff\u202e zero width \ufffd and \ufffd\ufffd, itself a replacement character \ufffd',
  '\u{10ffff}\u{1f4a9}\u{1d573} \u0000 \u001b[31m',
  "don't , stop . it 's n't \"quoted\" ( here ) ?",
  '\ufffd',
  '',
]

/** Streams sequences in step, as a batch of texts is. -> what came with each token. */
async function streamed(
  tokenizer: Pick<Tokenizer, 'decode'>,
  sequences: readonly ArrayLike<number>[],
  stops: readonly string[] = [],
): Promise<{ pieces: string[]; stopped: boolean }[]> {
  const rows = sequences.map((ids) => ({ ids: Array.from(ids), stream: new TextStream(stops), pieces: [] as string[] }))
  const longest = Math.max(...rows.map(({ ids }) => ids.length))
  for (let at = 0; at < longest; at++) {
    const open = rows.filter(({ ids, stream: { stopped } }) => at < ids.length && !stopped)
    const decoded = await tokenizer.decode(open.flatMap(({ ids, stream: own }) => own.add(ids[at]!)))
    open.forEach(({ ids, stream: own, pieces }, i) => {
      const last = at === ids.length - 1
      const text = own.take([decoded[2 * i]!, decoded[2 * i + 1]!], { last })
      pieces.push(last ? text + own.end() : text)
    })
  }
  return rows.map(({ pieces, stream: { stopped } }) => ({ pieces, stopped }))
}

/** Sequences of any tokens, as a model may make them: bytes in the middle of characters, special tokens, repetitions. */
function randomSequences(vocabulary: number): number[][] {
  return Array.from({ length: 60 }, (_, i) => {
    const values = uniform(stream(i, 'random sequences'), 2 + (i % 30))
    return Array.from(values, (value) => Math.floor(value * vocabulary))
  })
}

/** WordPiece, which no decoder has, takes back spaces that it has given: "don ' t" is "don't". */
const names = (await readdir(goldens)).map((name) => name.replace('.json', '')).filter((name) => name !== 'word-piece')

describe('pieces are the text', () => {
  test.each([...names, 'quickstart'])('%s', async (name) => {
    let folder = join(root, 'examples/quickstart/model')
    let known: readonly (readonly number[])[] = []
    let [vocabulary, inBytes] = [1024, false]
    if (name !== 'quickstart') {
      const golden = JSON.parse(await readFile(join(goldens, `${name}.json`), 'utf8')) as Golden
      folder = await mkdtemp(join(work, 'model-'))
      await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(golden.tokenizer))
      await writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify(golden.config))
      known = golden.ids
      vocabulary = Math.max(...known.flat()) + 1
      inBytes = JSON.stringify(golden.tokenizer).includes('"type":"ByteFallback"')
    }
    const tokenizer = await loadTokenizer(folder)
    const sequences = [...known, ...(await tokenizer.encode(texts)), ...randomSequences(vocabulary)]
    const whole = await tokenizer.decode(sequences)
    const found = await streamed(tokenizer, sequences)
    let compared = 0
    found.forEach(({ pieces }, i) => {
      // See `TextStream`.
      if (inBytes && whole[i]!.includes('\ufffd')) return
      compared++
      expect(pieces.join(''), String(sequences[i])).toBe(whole[i])
    })
    expect(compared).toBeGreaterThan(inBytes ? 100 : known.length + texts.length + 50)
    tokenizer.close()
  })
})

/** A tokenizer of one character a token, or of some bytes of one. */
const bytes: Pick<Tokenizer, 'decode'> = {
  decode: async (all) => all.map((ids) => new TextDecoder().decode(Uint8Array.from(ids))),
}
const encoded = (text: string): number[] => [...new TextEncoder().encode(text)]

describe('stop texts', () => {
  /** What came, and whether it stopped. */
  async function until(
    text: string,
    stops: readonly string[],
    size: number,
  ): Promise<{ text: string; stopped: boolean }> {
    const ids = encoded(text)
    // Tokens of `size` bytes.
    const tokens = Array.from({ length: Math.ceil(ids.length / size) }, (_, i) => i)
    const inTokens: Pick<Tokenizer, 'decode'> = {
      decode: (all) =>
        bytes.decode(all.map((own) => Array.from(own).flatMap((i) => ids.slice(i * size, (i + 1) * size)))),
    }
    const [found] = await streamed(inTokens, [tokens], stops)
    return { text: found!.pieces.join(''), stopped: found!.stopped }
  }

  test.each([
    ['none of them comes', 'one two three', ['four', 'twos'], undefined],
    ['one comes', 'one two three', ['two'], 'one '],
    ['it is a text of its own', 'stop', ['stop'], ''],
    ['it begins more than once', 'aab aabaac!', ['aabaac'], 'aab '],
    ['it begins within itself', 'ababac', ['abac'], 'ab'],
    ['the first of several comes', 'x one y two z', ['two', 'one'], 'x '],
    ['it ends a text', 'the end', ['end'], 'the '],
    ['it only begins at the end', 'the en', ['end'], undefined],
    ['it has characters of several bytes', 'zwölf 👩‍🚀 größe', ['👩‍🚀', 'g'], 'zwölf '],
    ['it is a part of a character that is several', 'a 👩‍🚀 b', ['🚀'], 'a 👩‍'],
    ['it has lines', 'User: hi\n\nUser: x', ['\n\n', '\nUser:'], 'User: hi'],
  ])('%s', async (_, text, stops, expected) => {
    for (const size of [1, 2, 3, 5, 100]) {
      expect(await until(text, stops, size), `${size}`).toEqual({
        text: expected ?? text,
        stopped: expected !== undefined,
      })
    }
  })

  test('any texts, cut at the first that is complete', async () => {
    const letters = (name: string, count: number): string =>
      Array.from(uniform(stream(count, name), count), (value) => 'abé'[Math.floor(value * 3)]).join('')
    let stopped = 0
    for (let i = 1; i <= 40; i++) {
      const text = letters(`text ${i}`, 40)
      const stops = [letters(`stop ${i}`, 2 + (i % 4)), letters(`other ${i}`, 3)]
      const ends = stops.map((stop) => text.indexOf(stop) + stop.length).filter((_, k) => text.includes(stops[k]!))
      const end = Math.min(...ends)
      const begin = Math.min(...stops.map((stop) => text.slice(0, end).indexOf(stop)).filter((at) => at !== -1))
      if (ends.length > 0) stopped++
      expect(await until(text, stops, 1)).toEqual({
        text: ends.length > 0 ? text.slice(0, begin) : text,
        stopped: ends.length > 0,
      })
    }
    expect(stopped).toBeGreaterThan(20)
  })
})

test('characters come whole, as soon as they are', async () => {
  const [found] = await streamed(bytes, [encoded('a👩é')])
  expect(found!.pieces).toEqual(['a', '', '', '', '👩', '', 'é'])
})

test('a text that ends within a character ends with what is there of it', async () => {
  for (const ids of [encoded('a👩').slice(0, 3), [...encoded('ok'), 0x80]]) {
    const [found] = await streamed(bytes, [ids])
    expect(found!.pieces.join('')).toBe(new TextDecoder().decode(Uint8Array.from(ids)))
  }
})
