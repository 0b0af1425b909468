/*
 * GGUF files against the gguf package and transformers: every weight bit for bit, and the tokens of hostile texts.
 *
 *     npm run parity:gguf -- --model FILE.gguf [--model OTHER.gguf] [--texts N] [--seed N]
 *
 * Tokens are compared with those of the tokenizer in the folder of the same name without .gguf, if there is one. Without Python (torch,
 * transformers, gguf) it says so and passes.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { findPython, runPython } from '../../bench/python.ts'
import { openWeights } from '../../src/model/sources/checkpoint.ts'
import { widened } from '../../src/storage/formats.ts'
import { loadTokenizer } from '../../src/text/tokenizer.ts'

const scripts = join(import.meta.dirname, '../../../test/parity')

function report(passed: boolean, what: string): void {
  console.log(`${passed ? 'ok  ' : 'FAIL'} ${what}`)
  if (!passed) process.exitCode = 1
}

/** A line for each weight that differs, and one for all. */
async function compareWeights(python: string, file: string): Promise<void> {
  const theirs = new Map(
    Object.entries(await runPython<Record<string, string>>(python, join(scripts, 'gguf_weights.py'), [file])),
  )
  const source = await openWeights(file)
  const kinds = new Map<string, number>()
  let same = 0
  for (const { name } of source.specs) {
    const weight = await source.load(name)
    const { data } = widened(weight)
    const hash = createHash('sha256')
      .update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
      .digest('hex')
    const equal = theirs.get(name) === hash
    if (!equal) report(false, `${basename(file)}: ${name} differs`)
    else same++
    const { storage } = weight
    const kind = typeof storage === 'string' ? storage : 'type' in storage ? storage.type : storage.kind
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
  }
  await source.close()
  const listed = [...kinds].map(([kind, count]) => `${count} ${kind}`).join(', ')
  const all = same === theirs.size && same === source.specs.length
  report(all, `${basename(file)}: ${same} of ${theirs.size} weights equal bit for bit (${listed})`)
}

async function compareTokens(
  python: string,
  file: string,
  options: { readonly folder: string; readonly texts: string; readonly seed: string; readonly work: string },
): Promise<void> {
  const out = join(options.work, 'reference.json')
  await runPython(python, join(scripts, 'tokens.py'), [options.folder, options.texts, options.seed, out])
  const expected = JSON.parse(await readFile(out, 'utf8')) as {
    readonly texts: string[]
    readonly ids: number[][]
    readonly prefix: number[]
    readonly suffix: number[]
  }
  const tokenizer = await loadTokenizer(file)
  try {
    const found = await tokenizer.encode(expected.texts)
    const wrong = expected.texts.filter((_, i) => String(found[i]) !== String(expected.ids[i]))
    for (const text of wrong.slice(0, 3)) console.error(JSON.stringify(text))
    report(wrong.length === 0, `${basename(file)}: tokens of ${expected.texts.length} texts, ${wrong.length} differ`)
    const around =
      String(tokenizer.prefix) === String(expected.prefix) && String(tokenizer.suffix) === String(expected.suffix)
    report(
      around,
      `${basename(file)}: [${tokenizer.prefix.join()}] before a text, [${tokenizer.suffix.join()}] behind it`,
    )
  } finally {
    tokenizer.close()
  }
}

const { values } = parseArgs({
  options: {
    model: { type: 'string', multiple: true, default: [] },
    texts: { type: 'string', default: '1000' },
    seed: { type: 'string', default: '0' },
  },
})
const python = await findPython()
if (python !== undefined) {
  const work = await mkdtemp(join(tmpdir(), 'lowrank-gguf-'))
  try {
    for (const file of values.model) {
      await compareWeights(python, file)
      const folder = file.replace(/\.gguf$/i, '')
      if (existsSync(folder)) await compareTokens(python, file, { ...values, folder, work })
    }
  } finally {
    await rm(work, { recursive: true })
  }
}
