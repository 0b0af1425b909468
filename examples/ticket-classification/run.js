/*
 * Two companies, one base model, an adapter each: trains on tickets and the queues that each company's rules send them to, measures accuracy
 * and macro F1 before and after, and answers tickets to both in one batch.
 *
 *     node examples/ticket-classification/run.js [--model DIR] [--seeds 1,2,3] [--out DIR]
 */
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { loadModel } from 'lowrank'
import { evaluated, lowrank, settings, writeRows } from '../lib/lowrank.js'
import { share, table } from '../lib/table.js'
import { sites, sizes, tickets } from './tickets.js'

const { model, out, seeds } = settings('ticket-classification')
const config = fileURLToPath(new URL('config.yaml', import.meta.url))
const shots = 8

/** @type {string[][]} */
const rows = []
for (const [name, { queues }] of Object.entries(sites)) {
  const file = (/** @type {string} */ part) => join(out, name, part)
  await writeRows(file('train.jsonl'), tickets(name, { part: 'train', count: sizes.train }))
  await writeRows(file('test.jsonl'), tickets(name, { part: 'test', count: sizes.test }))
  const data = ['--data', file('test.jsonl'), '--metrics', 'accuracy,macro-f1', '--labels', queues.join()]
  const few = ['--shots', `${shots}`, '--shots-from', file('train.jsonl')]
  const { baselines = [] } = await evaluated(['--model', model, ...data, '--baseline', ...few])
  const tuned = []
  for (const seed of seeds) {
    const adapter = file(`adapter-${seed}`)
    await lowrank([
      'train',
      config,
      '--model',
      model,
      '--train',
      file('train.jsonl'),
      '--output-dir',
      adapter,
      '--seed',
      `${seed}`,
    ])
    tuned.push(
      await evaluated(['--model', model, '--adapter', adapter, ...data, '--output', file(`results-${seed}.jsonl`)]),
    )
  }
  const row = (
    /** @type {string} */ what,
    /** @type {readonly { metrics: Readonly<Record<string, number>> }[]} */ found,
  ) =>
    rows.push([
      name,
      what,
      ...['accuracy', 'macroF1'].map((metric) => share(found.map((one) => one.metrics[metric] ?? NaN))),
    ])
  for (const one of baselines) row(one.shots === 0 ? 'base' : `base, ${one.shots} examples in the prompt`, [one])
  row('tuned', tuned)
}
console.log(`\n${table(['company', 'model', 'accuracy, %', 'macro F1, %'], rows)}\n`)

// One base in memory serves both: the same tickets in one batch, each row with the adapter of its company.
const served = await loadModel({ model })
try {
  for (const name of Object.keys(sites)) await served.loadAdapter(name, join(out, name, `adapter-${seeds[0]}`))
  const asked = tickets('velora', { part: 'test', count: 6, seed: 7 }).map(({ prompt }) => prompt)
  const names = Object.keys(sites)
  const batch = asked.flatMap((prompt) => names.map((adapter) => ({ prompt, adapter })))
  const answers = await served.generate(
    batch.map(({ prompt }) => prompt),
    { adapter: batch.map(({ adapter }) => adapter), maxNewTokens: 8 },
  )
  const lines = asked.map((prompt, i) => [
    /** @type {string} */ (prompt.split('\n')[0]),
    ...names.map((_, n) => answers[i * names.length + n]?.trim() ?? ''),
  ])
  console.log(table(['ticket', ...names], lines))
} finally {
  await served.close()
}
