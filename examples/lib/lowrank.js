import { spawn } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
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
 * @param {readonly string[]} args
 * @returns {Promise<string>}
 */
export async function lowrank(args) {
  console.error(`\n$ npx lowrank ${args.map((arg) => (/[^\w./:,=-]/.test(arg) ? `'${arg}'` : arg)).join(' ')}`)
  const main = fileURLToPath(new URL('cli/main.js', import.meta.resolve('lowrank')))
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (part) => (text += part))
  const code = await new Promise((resolve, reject) => child.once('error', reject).once('close', resolve))
  if (code !== 0) throw new Error(`lowrank ${args[0]} ended with code ${code}`)
  return text
}

/**
 * What `lowrank eval --json` says of a model.
 *
 * @typedef {{ loss: number, metrics: Readonly<Record<string, number>> }} Evaluation
 */

/**
 * @param {readonly string[]} args
 * @returns {Promise<Evaluation & { baselines?: readonly (Evaluation & { shots: number })[] }>}
 */
export async function evaluated(args) {
  return JSON.parse(await lowrank(['eval', ...args, '--json']))
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
