/*
 * Support for a product from its handbook: finds the passage that a question is about by embeddings of the model itself, trains it to answer
 * from a passage, and measures answers with and without one, before and after. Tests are about passages that training never had.
 *
 *     node examples/support-chat/run.js [--model DIR] [--seeds 1,2,3] [--out DIR]
 */
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { loadModel } from 'lowrank'
import { evaluateAll, settings, trainAll, writeRows } from '../lib/lowrank.js'
import { metricRows, share, table } from '../lib/table.js'
import { learned, messagesOf, questions, textOf, unseen } from './handbook.js'
import { nearest } from './retrieval.js'

const given = settings('support-chat')
const { model, out } = given
const here = (/** @type {string} */ name) => fileURLToPath(new URL(name, import.meta.url))

const passages = [...learned, ...unseen]
const asked = (/** @type {typeof passages} */ some) =>
  some.flatMap((right) => right.questions.flatMap(([wordings]) => wordings.map((text) => ({ text, right }))))

// The base model finds the passages, among all of the handbook.
const base = await loadModel({ model })
const ofPassages = await base.embed(passages.map(textOf))
const ofLearned = await base.embed(asked(learned).map(({ text }) => text))
const tests = asked(unseen)
const ofTests = await base.embed(tests.map(({ text }) => text))
await base.close()
const near = nearest(passages, ofPassages, ofLearned)
const found = new Map(tests.map(({ text }, i) => [text, near(/** @type {Float32Array} */ (ofTests[i]))]))
const among = (/** @type {number} */ count) =>
  share([tests.filter(({ text, right }) => found.get(text)?.slice(0, count).includes(right)).length / tests.length])
console.error(
  `the right passage of ${passages.length} comes first in ${among(1)} %, among the first three in ${among(3)} % of ${tests.length} questions`,
)

const train = join(out, 'train.jsonl')
await writeRows(train, questions(learned))
const adapters = await trainAll(here('config.yaml'), { ...given, train, folder: out })

const prompts = {
  'no passage': questions(unseen, () => undefined),
  'passage found': questions(unseen, (text) => found.get(text)?.[0]),
  'right passage': questions(unseen),
}
const rows = []
for (const [name, made] of Object.entries(prompts)) {
  const data = join(out, `${name.replace(' ', '-')}.jsonl`)
  await writeRows(data, made)
  const flags = { model, data, metrics: 'rouge', 'metric-module': here('cites.js'), 'max-new-tokens': 40 }
  const results = await evaluateAll(flags, { shots: 3, train, adapters })
  rows.push(...metricRows(results, ['rougeL', 'custom']).map((row) => [name, ...row]))
}
console.log(
  `\nretrieval, of ${tests.length} questions: right passage first ${among(1)} %, among the first three ${among(3)} %`,
)
console.log(`\n${table(['prompt', 'model', 'ROUGE-L, %', 'right source, %'], rows)}\n`)

const question = 'Can my toddler press the buttons?'
const served = await loadModel({ model, adapter: adapters[0] })
try {
  const [vector] = await served.embed([question], { adapter: null })
  const prompt = { messages: messagesOf(question, near(/** @type {Float32Array} */ (vector))[0]) }
  const [before, after] = await served.generate([prompt, prompt], { adapter: [null, 'default'], maxNewTokens: 40 })
  console.log(`${prompt.messages.at(-1)?.content}\n\nbase: ${before}\n\ntuned: ${after}`)
} finally {
  await served.close()
}
