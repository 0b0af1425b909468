/*
 * Two companies, one base model, an adapter each: trains on tickets and the queues that each company's rules send them to, measures accuracy
 * and macro F1 before and after, and answers tickets to both in one batch.
 *
 *     node examples/ticket-classification/run.js [--model DIR] [--seeds 1,2,3] [--out DIR]
 */
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { loadModel } from 'lowrank'
import { evaluateAll, settings, trainAll, writeRows } from '../lib/lowrank.js'
import { metricRows, table } from '../lib/table.js'
import { sites, sizes, tickets } from './tickets.js'

const given = settings('ticket-classification')
const { model, out } = given
const config = fileURLToPath(new URL('config.yaml', import.meta.url))

/** @type {Map<string, string>} */
const chosen = new Map()
const rows = []
for (const [name, { queues }] of Object.entries(sites)) {
  const folder = join(out, name)
  const [train, data] = [join(folder, 'train.jsonl'), join(folder, 'test.jsonl')]
  await writeRows(train, tickets(name, { part: 'train', count: sizes.train }))
  await writeRows(data, tickets(name, { part: 'test', count: sizes.test }))
  const adapters = await trainAll(config, { ...given, train, folder })
  chosen.set(name, adapters[0] ?? '')
  // The label of a ticket is the likeliest.
  const flags = { model, data, metrics: 'accuracy,macro-f1', labels: queues.join(',') }
  const found = await evaluateAll(flags, { shots: 8, train, adapters })
  rows.push(...metricRows(found, ['accuracy', 'macroF1']).map((row) => [name, ...row]))
}
console.log(`\n${table(['company', 'model', 'accuracy, %', 'macro F1, %'], rows)}\n`)

// One base in memory serves both: the same tickets in one batch, each row with the adapter of its company.
const served = await loadModel({ model })
try {
  for (const [name, adapter] of chosen) await served.loadAdapter(name, adapter)
  const names = [...chosen.keys()]
  const asked = tickets('velora', { part: 'test', count: 6, seed: 7 }).map(({ prompt }) => prompt)
  const batch = asked.flatMap((prompt) => names.map((adapter) => ({ prompt, adapter })))
  const answers = await served.generate(
    batch.map(({ prompt }) => prompt),
    { adapter: batch.map(({ adapter }) => adapter), maxNewTokens: 8 },
  )
  const lines = asked.map((prompt, i) => {
    const given = answers.slice(i * names.length, (i + 1) * names.length)
    return [prompt.replace(/\nQueue:$/, ''), ...given.map((answer) => answer.trim())]
  })
  console.log(table(['', ...names], lines))
} finally {
  await served.close()
}
