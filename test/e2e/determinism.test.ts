import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import type { TrainConfigInput } from 'lowrank'
import { collect, hashFolder, makeTinyModel, runScript, temporaryFolder, writeData } from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder)
// Between long examples short ones, so that there is something to pack.
const lines = readFileSync(data.train, 'utf8').trimEnd().split('\n')
const short = lines.map((_, i) => JSON.stringify({ prompt: `Ticket ${i}:`, completion: ' none'.repeat((i % 5) + 1) }))
writeFileSync(data.train, `${lines.flatMap((line, i) => [short[i], line]).join('\n')}\n`)

type Options = Partial<TrainConfigInput>

let model: string
/** A model whose larger matrices have moments in 8 bits; those of small tensors stay f32. */
let wider: string
let runs = 0

/** A run into a folder of its own. */
const configOf = (options: Options): TrainConfigInput => {
  const outputDir = join(folder, `run-${runs++}`)
  const common = { model, train: data.train, outputDir, maxLength: 96, maxSteps: 3, saveSteps: 2, threads: 2, seed: 5 }
  return { ...common, learningRate: 1e-2, ...options }
}

/** SHA-256 of the weights that a run has left, checkpoints included. */
function weightsIn({ outputDir }: TrainConfigInput): Record<string, string> {
  const all = Object.entries(hashFolder(outputDir)).filter(([name]) => name.endsWith('.safetensors'))
  // The result, the weights of the checkpoint, and what the optimizer remembers there.
  expect(all).toHaveLength(3)
  return Object.fromEntries(all)
}

async function weightsOf(options: Options): Promise<Record<string, string>> {
  const config = configOf(options)
  await collect(config)
  return weightsIn(config)
}

const lora = { r: 4, targetModules: 'all-linear', perDeviceTrainBatchSize: 4 }
const every = { method: 'full', perDeviceTrainBatchSize: 4 } as const
const cases: Readonly<Record<string, () => Options>> = {
  'one pass a step': () => lora,
  dropout: () => ({ ...lora, loraDropout: 0.2 }),
  accumulation: () => ({ ...lora, perDeviceTrainBatchSize: 1, gradientAccumulationSteps: 4 }),
  packing: () => ({ ...lora, packing: true }),
  'NEFTune, dropout and packing': () => ({ ...lora, neftuneNoiseAlpha: 5, loraDropout: 0.2, packing: true }),
  'recomputed activations': () => ({ ...lora, loraDropout: 0.3, activations: 'recompute' }),
  'a base in 4 bits': () => ({ ...lora, method: 'qlora', loraDropout: 0.2 }),
  'products in slices of 8 bits': () => ({ ...lora, matmulPrecision: 'high' }),
  'slices that are transposed': () => ({
    ...lora,
    loraDropout: 0.1,
    matmulPrecision: 'high',
    activations: 'recompute',
  }),
  'slices of a base in 8 bits': () => ({ ...lora, method: 'qlora', loadIn8bit: true, matmulPrecision: 'high' }),
  'every weight': () => every,
  '8-bit AdamW': () => ({ ...every, optim: 'adamw-8bit', model: wider }),
}

const elsewhere = new Map<string, TrainConfigInput>()
const found = new Map<string, Record<string, string>>()

// Another process runs all cases too, which only shares the configurations with this one.
beforeAll(async () => {
  model = await makeTinyModel(folder)
  wider = await makeTinyModel(join(folder, 'wider'), { intermediate_size: 256 })
  for (const [name, options] of Object.entries(cases)) elsewhere.set(name, configOf(options()))
  const configs = JSON.stringify([...elsewhere.values()])
  const script = `import { finetune } from 'lowrank'; for (const config of ${configs}) for await (const _ of finetune(config));`
  const { code, stderr } = await runScript(script, 60)
  expect(code, stderr).toBe(0)
})

describe('the same seed, configuration and threads give the same bytes', () => {
  test.each(Object.entries(cases))('%s', async (name, options) => {
    const weights = await weightsOf(options())
    expect(weightsIn(elsewhere.get(name)!)).toEqual(weights)
    found.set(name, weights)
  })

  // Each option had an effect.
  test('which are those of no other case', () => {
    expect(found.size).toBe(12)
    expect(new Set([...found.values()].map((weights) => JSON.stringify(weights))).size).toBe(found.size)
  })
})

test.each(['one pass a step', 'every weight'])('another seed gives other bytes: %s', async (name) => {
  const [one, other] = [found.get(name)!, await weightsOf({ ...cases[name]!(), seed: 6 })]
  expect(Object.keys(other)).toEqual(Object.keys(one))
  for (const file of Object.keys(one)) expect(other[file]).not.toBe(one[file])
})
