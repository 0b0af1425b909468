/*
 * Support for a product from its handbook: finds the passage that a question is about by embeddings of the model itself, trains it to answer
 * from a passage, and measures answers with and without one, before and after. Tests are about passages that training never had.
 *
 *     node examples/support-chat/run.js [--model DIR] [--seeds 1,2,3] [--out DIR]
 */
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { loadModel } from 'lowrank'
import { evaluated, lowrank, settings, writeRows } from '../lib/lowrank.js'
import { share, table } from '../lib/table.js'
import { learned, messagesOf, questions, textOf, unseen } from './handbook.js'
import { nearest } from './retrieval.js'

const { model, out, seeds } = settings('support-chat')
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
const kinds = [
  { name: 'no passage', file: join(out, 'test-none.jsonl'), rows: questions(unseen, () => undefined) },
  {
    name: 'passage found',
    file: join(out, 'test-found.jsonl'),
    rows: questions(unseen, (text) => found.get(text)?.[0]),
  },
  { name: 'right passage', file: join(out, 'test-right.jsonl'), rows: questions(unseen) },
]
for (const { file, rows } of kinds) await writeRows(file, rows)
for (const seed of seeds) {
  const adapter = ['--output-dir', join(out, `adapter-${seed}`), '--seed', `${seed}`]
  await lowrank(['train', here('config.yaml'), '--model', model, '--train', train, ...adapter])
}

/** @type {string[][]} */
const rows = []
for (const { name, file } of kinds) {
  const data = ['--data', file, '--metrics', 'rouge', '--metric-module', here('cites.js'), '--max-new-tokens', '40']
  const row = (
    /** @type {string} */ what,
    /** @type {readonly { metrics: Readonly<Record<string, number>> }[]} */ results,
  ) =>
    rows.push([
      name,
      what,
      ...['rougeL', 'custom'].map((key) => share(results.map(({ metrics }) => metrics[key] ?? NaN))),
    ])
  const few = ['--shots', '3', '--shots-from', train]
  const { baselines = [] } = await evaluated(['--model', model, ...data, '--baseline', ...few])
  for (const one of baselines) row(one.shots === 0 ? 'base' : `base, ${one.shots} examples in the prompt`, [one])
  const tuned = []
  for (const seed of seeds) {
    const results = ['--output', file.replace('.jsonl', `-results-${seed}.jsonl`)]
    tuned.push(await evaluated(['--model', model, '--adapter', join(out, `adapter-${seed}`), ...data, ...results]))
  }
  row('tuned', tuned)
}
console.log(
  `\nretrieval, of ${tests.length} questions: right passage first ${among(1)} %, among the first three ${among(3)} %`,
)
console.log(`\n${table(['prompt', 'model', 'ROUGE-L, %', 'right source, %'], rows)}\n`)

const question = 'Can my toddler press the buttons?'
const served = await loadModel({ model, adapter: join(out, `adapter-${seeds[0]}`) })
try {
  const [vector] = await served.embed([question], { adapter: null })
  const [passage] = near(/** @type {Float32Array} */ (vector))
  for (const [name, adapter] of /** @type {const} */ ([
    ['base', null],
    ['tuned', undefined],
  ])) {
    const answer = await served.generate({ messages: messagesOf(question, passage) }, { adapter, maxNewTokens: 40 })
    console.log(`${name}: ${question} ${answer}`)
  }
} finally {
  await served.close()
}
