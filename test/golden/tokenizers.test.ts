import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { components } from '../../src/text/tokenizer/components.ts'
import { loadTokenizer } from '../../src/text/tokenizer.ts'

// Made by make_tokenizer_golden.py with the Python library.

interface Golden {
  readonly tokenizer: object
  readonly config: object
  readonly texts: string[]
  readonly ids: number[][]
  readonly decoded: string[]
  readonly prefix: number[]
  readonly suffix: number[]
}

const root = fileURLToPath(new URL('tokenizers', import.meta.url))
const work = mkdtempSync(join(tmpdir(), 'lowrank-tokenizers-'))
afterAll(() => rmSync(work, { recursive: true }))

const goldens = readdirSync(root).map((name) => {
  const golden = JSON.parse(readFileSync(join(root, name), 'utf8')) as Golden
  return { name: name.replace('.json', ''), golden }
})

test.each(goldens)('$name: ids and texts of the Python library', async ({ golden }) => {
  const folder = mkdtempSync(join(work, 'model-'))
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(golden.tokenizer))
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify(golden.config))
  const tokenizer = await loadTokenizer(folder)
  const ids = await tokenizer.encode(golden.texts)
  expect(ids.map((one) => [...one])).toEqual(golden.ids)
  expect(await tokenizer.decode(ids)).toEqual(golden.decoded)
  expect([tokenizer.prefix, tokenizer.suffix]).toEqual([golden.prefix, golden.suffix])
  tokenizer.close()
})

test('the golden tokenizers hold every component but those of other files', () => {
  const text = goldens.map(({ golden }) => JSON.stringify(golden.tokenizer)).join('\n')
  const types = Object.values(components).flatMap((section) => Object.keys(section))
  const missing = types.filter((type) => !text.includes(`"type":"${type}"`))
  // A table of SentencePiece of 300 KB, which npm run parity:tokens compares, and decoding of speech.
  expect(missing.toSorted()).toEqual(['CTC', 'Precompiled'])
})
