/*
 * Notes of service calls in the style of a house: trains on calls and their notes, and measures ROUGE before and after.
 *
 *     node examples/dialogue-summary/run.js [--model DIR] [--seeds 1,2,3] [--out DIR]
 */
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { loadModel } from 'lowrank'
import { evaluateAll, settings, trainAll, writeRows } from '../lib/lowrank.js'
import { metricRows, table } from '../lib/table.js'
import { calls, sizes } from './calls.js'

const given = settings('dialogue-summary')
const { model, out } = given
const config = fileURLToPath(new URL('config.yaml', import.meta.url))
const [train, data] = [join(out, 'train.jsonl'), join(out, 'test.jsonl')]
await writeRows(train, calls({ part: 'train', count: sizes.train }))
await writeRows(data, calls({ part: 'test', count: sizes.test }))

const adapters = await trainAll(config, { ...given, train, folder: out })
// Notes have up to 45 tokens.
const flags = { model, data, metrics: 'rouge,exact-match', 'max-new-tokens': 60 }
const found = await evaluateAll(flags, { shots: 3, train, adapters })
const rows = metricRows(found, ['rougeL', 'rouge2', 'exactMatch'])
console.log(`\n${table(['model', 'ROUGE-L, %', 'ROUGE-2, %', 'exact, %'], rows)}\n`)

const [call] = calls({ part: 'test', count: 1, seed: 2 })
const messages = call?.messages.slice(0, -1) ?? []
const served = await loadModel({ model, adapter: adapters[0] })
try {
  const [base, tuned] = await served.generate([{ messages }, { messages }], {
    adapter: [null, 'default'],
    maxNewTokens: 60,
  })
  console.log(`${messages.at(-1)?.content}\n\nbase: ${base}\n\ntuned: ${tuned}`)
} finally {
  await served.close()
}
