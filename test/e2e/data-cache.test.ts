import { readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import type { TrainConfigInput } from 'lowrank'
import { collect, hashFolder, makeTinyModel, only, temporaryFolder, writeData } from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder)
const cache = join(folder, 'cache')
let model: string
let runs = 0

beforeAll(async () => {
  model = await makeTinyModel(folder)
})

/** SHA-256 of what a run trains, and what became of its data. */
async function run(options: Partial<TrainConfigInput>): Promise<{ weights: unknown; data: unknown }> {
  const outputDir = join(folder, `run-${runs++}`)
  const common = { model, train: data.train, valid: data.valid, outputDir, maxLength: 96, maxSteps: 3, threads: 2 }
  const events = await collect({ ...common, targetModules: 'all-linear', packing: true, ...options })
  const weights = Object.entries(hashFolder(outputDir)).filter(([name]) => name.endsWith('.safetensors'))
  expect(weights.length).toBeGreaterThan(0)
  const { train, valid } = only(events, 'data')[0]!
  const { onDisk, ...summary } = train
  return { weights, data: [summary, valid?.tokens, onDisk === true] }
}

const entries = (): string[] => readdirSync(cache).sort()

test('the tokens are kept, used again, and train the same bytes as without', async () => {
  const without = await run({ dataCache: 'none' })
  const first = await run({ dataCache: cache })
  expect(first.weights).toEqual(without.weights)
  expect(first.data).toMatchObject([{ examples: 16 }, expect.anything(), true])
  const made = entries()
  // Training and validation data.
  expect(made).toHaveLength(2)
  const written = made.map((name) => statSync(join(cache, name, 'tokens.bin')).mtimeMs)
  expect(await run({ dataCache: cache })).toEqual(first)
  expect(made.map((name) => statSync(join(cache, name, 'tokens.bin')).mtimeMs)).toEqual(written)
})

test('whatever decides the tokens makes an entry of its own', async () => {
  const before = entries().length
  await run({ dataCache: cache, maxLength: 48 })
  await run({ dataCache: cache, trainOnInputs: true })
  expect(entries().length).toBe(before + 4)
})

test('an entry that is not whole is made again; what a killed process left is none', async () => {
  const whole = await run({ dataCache: cache })
  for (const name of entries()) truncateSync(join(cache, name, 'tokens.bin'), 40)
  const [some] = entries()
  rmSync(join(cache, some!, 'dataset.json'))
  writeFileSync(join(cache, 'left.1-x.tmp'), '')
  expect((await run({ dataCache: cache })).weights).toEqual(whole.weights)
})
