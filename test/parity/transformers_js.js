/*
 * Continues prompts greedily with transformers.js, as its users do: prints {version, sequences} as JSON. Exits with 3 where it is missing.
 *
 *     node test/parity/transformers_js.js MODEL prompts.json
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

const [folder = '', asked = ''] = process.argv.slice(2)
const { prompts, tokens } = JSON.parse(readFileSync(asked, 'utf8'))

const from = process.env.LOWRANK_PEERS
const require = createRequire(from === undefined ? import.meta.url : join(resolve(from), 'package.json'))
let entry
try {
  entry = require.resolve('@huggingface/transformers')
} catch {
  console.error(
    '@huggingface/transformers is not installed (npm install @huggingface/transformers in a folder, and LOWRANK_PEERS)',
  )
  process.exit(3)
}
const { AutoModelForCausalLM, AutoTokenizer, env } = await import(pathToFileURL(entry).href)
env.allowRemoteModels = false
env.localModelPath = ''

const tokenizer = await AutoTokenizer.from_pretrained(folder)
const model = await AutoModelForCausalLM.from_pretrained(folder)
const generated = { max_new_tokens: tokens, do_sample: false }
/** @type {number[][]} */
const sequences = []
for (const prompt of prompts) {
  const output = await model.generate({ ...tokenizer(prompt), ...generated })
  sequences.push(output.tolist()[0].map(Number))
}
// All at once, padded on the left: the same tokens, but for what fills the rows.
tokenizer.padding_side = 'left'
const inputs = tokenizer(prompts, { padding: true })
/** @type {bigint[][]} */
const rows = (await model.generate({ ...inputs, ...generated })).tolist()
/** @type {bigint[][]} */
const masks = inputs.attention_mask.tolist()
rows.forEach((row, i) => {
  const padding = masks[i]?.filter((one) => Number(one) === 0).length ?? 0
  const own = row.slice(padding, padding + (sequences[i]?.length ?? 0)).map(Number)
  if (String(own) !== String(sequences[i])) {
    console.error(`prompt ${i} has other tokens in a batch`)
    process.exit(1)
  }
})
console.log(JSON.stringify({ version: env.version, sequences }))
process.exit(0)
