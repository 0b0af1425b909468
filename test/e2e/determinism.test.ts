import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import type { TrainConfigInput } from 'lowrank'
import {
  collect,
  flags,
  hashFolder,
  lowrank,
  makeTinyModel,
  quickstart,
  temporaryFolder,
  writeData,
} from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder)
// Between long examples short ones, so that there is something to pack.
const lines = readFileSync(data.train, 'utf8').trimEnd().split('\n')
const short = lines.map((_, i) => JSON.stringify({ prompt: `Ticket ${i}:`, completion: ' none'.repeat((i % 5) + 1) }))
writeFileSync(data.train, `${lines.flatMap((line, i) => [short[i], line]).join('\n')}\n`)

let model: string
beforeAll(async () => {
  model = await makeTinyModel(folder)
})

let runs = 0
type Options = Readonly<Record<string, string | number | boolean>>

type Start = (config: TrainConfigInput & Options) => Promise<unknown>
const throughApi: Start = collect
const throughCommandLine: Start = async (config) => {
  const { code, stderr } = await lowrank(['train', ...flags(config)])
  expect(code, stderr).toBe(0)
}

/** SHA-256 of the weights that a run leaves, checkpoints included. */
async function weightsOf(options: Options, start = throughApi): Promise<Record<string, string>> {
  const outputDir = join(folder, `run-${runs++}`)
  const common = { model, train: data.train, outputDir, maxLength: 96, maxSteps: 3, saveSteps: 2, threads: 2, seed: 5 }
  await start({ ...common, learningRate: 1e-2, ...options })
  const all = Object.entries(hashFolder(outputDir)).filter(([name]) => name.endsWith('.safetensors'))
  // The result, the weights of the checkpoint, and what the optimizer remembers there.
  expect(all).toHaveLength(3)
  return Object.fromEntries(all)
}

const lora = { r: 4, targetModules: 'all-linear', perDeviceTrainBatchSize: 4 }
const cases: readonly (readonly [string, Options])[] = [
  ['one pass a step', lora],
  ['dropout', { ...lora, loraDropout: 0.2 }],
  ['accumulation', { ...lora, perDeviceTrainBatchSize: 1, gradientAccumulationSteps: 4 }],
  ['packing', { ...lora, packing: true }],
  ['NEFTune, dropout and packing', { ...lora, neftuneNoiseAlpha: 5, loraDropout: 0.2, packing: true }],
  ['recomputed activations', { ...lora, loraDropout: 0.3, activations: 'recompute' }],
  ['a base in 4 bits', { ...lora, method: 'qlora', loraDropout: 0.2 }],
  ['every weight', { method: 'full', perDeviceTrainBatchSize: 4 }],
  // The state of small tensors stays f32.
  ['8-bit AdamW', { method: 'full', perDeviceTrainBatchSize: 4, optim: 'adamw-8bit', model: quickstart }],
]

describe('the same seed, configuration and threads give the same bytes', () => {
  const found = new Map<string, string>()

  test.each(cases)('%s', async (name, options) => {
    const first = await weightsOf(options)
    // Another process, which only shares the configuration with this one.
    expect(await weightsOf(options, throughCommandLine)).toEqual(first)
    found.set(name, JSON.stringify(first))
  })

  // Each option had an effect.
  test('which are those of no other case', () => {
    expect(found.size).toBe(cases.length)
    expect(new Set(found.values()).size).toBe(cases.length)
  })
})

test.each([
  ['an adapter', lora],
  ['every weight', { method: 'full', perDeviceTrainBatchSize: 4 }],
] as const)('another seed gives other bytes: %s', async (_, options) => {
  const [one, other] = [await weightsOf({ ...options, seed: 5 }), await weightsOf({ ...options, seed: 6 })]
  expect(Object.keys(other)).toEqual(Object.keys(one))
  for (const name of Object.keys(one)) expect(other[name]).not.toBe(one[name])
})
