/*
 * Notes of service calls in the style of a house: trains on calls and their notes, and measures ROUGE before and after.
 *
 *     node examples/dialogue-summary/run.js [--model DIR] [--seeds 1,2,3] [--out DIR]
 */
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { loadModel } from 'lowrank'
import { evaluated, lowrank, settings, writeRows } from '../lib/lowrank.js'
import { share, table } from '../lib/table.js'
import { calls, sizes } from './calls.js'

const { model, out, seeds } = settings('dialogue-summary')
const config = fileURLToPath(new URL('config.yaml', import.meta.url))
const [train, test] = [join(out, 'train.jsonl'), join(out, 'test.jsonl')]
await writeRows(train, calls({ part: 'train', count: sizes.train }))
await writeRows(test, calls({ part: 'test', count: sizes.test }))

// The longest note has 45 tokens.
const data = ['--data', test, '--metrics', 'rouge,exact-match', '--max-new-tokens', '60']
const { baselines = [] } = await evaluated([
  '--model',
  model,
  ...data,
  '--baseline',
  '--shots',
  '3',
  '--shots-from',
  train,
])
const tuned = []
for (const seed of seeds) {
  const adapter = join(out, `adapter-${seed}`)
  await lowrank(['train', config, '--model', model, '--train', train, '--output-dir', adapter, '--seed', `${seed}`])
  const results = ['--output', join(out, `results-${seed}.jsonl`)]
  tuned.push(await evaluated(['--model', model, '--adapter', adapter, ...data, ...results]))
}

/**
 * @param {string} what
 * @param {readonly { metrics: Readonly<Record<string, number>> }[]} found
 */
function row(what, found) {
  return [
    what,
    ...['rougeL', 'rouge2', 'exactMatch'].map((name) => share(found.map(({ metrics }) => metrics[name] ?? NaN))),
  ]
}
const before = baselines.map((one) =>
  row(one.shots === 0 ? 'base' : `base, ${one.shots} examples in the prompt`, [one]),
)
console.log(`\n${table(['model', 'ROUGE-L, %', 'ROUGE-2, %', 'exact, %'], [...before, row('tuned', tuned)])}\n`)

const served = await loadModel({ model, adapter: join(out, `adapter-${seeds[0]}`) })
try {
  const [call] = calls({ part: 'test', count: 1, seed: 2 })
  const messages = call?.messages.slice(0, -1) ?? []
  console.log(messages.at(-1)?.content)
  for (const adapter of [null, undefined]) {
    console.log(
      `\n${adapter === null ? 'base' : 'tuned'}: ${await served.generate({ messages }, { adapter, maxNewTokens: 60 })}`,
    )
  }
} finally {
  await served.close()
}
