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

const names = (await readdir(goldens)).map((name) => name.replace('.json', ''))

describe('pieces are the text', () => {
  test.each([...names, 'quickstart'])('%s', async (name) => {
    let folder = join(root, 'examples/quickstart/model')
    let known: readonly (readonly number[])[] = []
    let vocabulary = 1024
    if (name !== 'quickstart') {
      const golden = JSON.parse(await readFile(join(goldens, `${name}.json`), 'utf8')) as Golden
      folder = await mkdtemp(join(work, 'model-'))
      await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(golden.tokenizer))
      await writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify(golden.config))
      known = golden.ids
      vocabulary = Math.max(...known.flat()) + 1
    }
    const tokenizer = await loadTokenizer(folder)
    const sequences = [...known, ...(await tokenizer.encode(texts)), ...randomSequences(vocabulary)]
    const whole = await tokenizer.decode(sequences)
    const found = await streamed(tokenizer, sequences)
    found.forEach(({ pieces }, i) => expect(pieces.join(''), String(sequences[i])).toBe(whole[i]))
    tokenizer.close()
  })
})
