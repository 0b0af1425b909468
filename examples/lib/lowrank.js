import { spawn } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

/**
 * What the command of an example is called with.
 *
 * @typedef {object} Settings
 * @property {string} model a folder, or its name on the hub
 * @property {string} out where data, adapters and results go
 * @property {readonly number[]} seeds a training for each
 */

/**
 * @param {string} name of the example
 * @returns {Settings}
 */
export function settings(name) {
  const { values } = parseArgs({
    options: {
      model: { type: 'string', default: 'HuggingFaceTB/SmolLM2-135M-Instruct' },
      out: { type: 'string', default: `out/${name}` },
      seeds: { type: 'string', default: '1' },
    },
  })
  const seeds = values.seeds.split(',').map(Number)
  if (!seeds.every((seed) => Number.isInteger(seed) && seed >= 0))
    throw new Error(`--seeds ${values.seeds}: expected 1,2,3`)
  return { ...values, seeds }
}

/**
 * Runs the command line, shows how it was called, and gives what it wrote to standard output.
 *
 * @param {readonly string[]} command
 * @param {Readonly<Record<string, string | number>>} flags
 * @returns {Promise<string>}
 */
export async function lowrank(command, flags) {
  const args = [...command, ...Object.entries(flags).flatMap(([name, value]) => [`--${name}`, `${value}`])]
  console.error(`\n$ npx lowrank ${args.join(' ')}`)
  const main = fileURLToPath(new URL('cli.js', import.meta.resolve('lowrank')))
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (part) => (text += part))
  const code = await new Promise((resolve, reject) => child.once('error', reject).once('close', resolve))
  if (code !== 0) throw new Error(`lowrank ${command.join(' ')} ended with code ${code}`)
  return text
}

/** @typedef {{ readonly metrics: Readonly<Record<string, number>> }} Evaluation what `lowrank eval --json` says of a model */

/**
 * Measures the base model, the base model with some training data in each prompt, and adapters.
 *
 * @param {Readonly<Record<string, string | number>>} flags of `lowrank eval`
 * @param {{ shots: number, train: string, adapters: readonly string[] }} compared
 * @returns {Promise<{ what: string, results: readonly Evaluation[] }[]>}
 */
export async function evaluateAll(flags, { shots, train, adapters }) {
  const evaluate = async (/** @type {typeof flags} */ more) =>
    /** @type {Evaluation & { baselines?: readonly Evaluation[] }} */ (
      JSON.parse(await lowrank(['eval', '--json'], { ...flags, ...more }))
    )
  const base = await evaluate({ shots, 'shots-from': train })
  const tuned = []
  for (const adapter of adapters) {
    tuned.push(await evaluate({ adapter, output: `${adapter}-answers-${basename(`${flags['data']}`)}` }))
  }
  return [
    { what: 'base', results: [base] },
    { what: `base, ${shots} examples in the prompt`, results: base.baselines ?? [] },
    { what: 'tuned', results: tuned },
  ]
}

/**
 * Trains an adapter for each seed, and gives their folders.
 *
 * @param {string} config
 * @param {Settings & { train: string, folder: string }} settings
 * @returns {Promise<string[]>}
 */
export async function trainAll(config, { model, seeds, train, folder }) {
  const adapters = []
  for (const seed of seeds) {
    const adapter = join(folder, `adapter-${seed}`)
    await lowrank(['train', config], { model, train, 'output-dir': adapter, seed })
    adapters.push(adapter)
  }
  return adapters
}

/**
 * Writes records as JSONL.
 *
 * @param {string} path
 * @param {readonly object[]} rows
 */
export async function writeRows(path, rows) {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
}
