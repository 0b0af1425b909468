import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { flags, lowrank, only, quickstart, readJson, readMetrics, temporaryFolder } from './support.ts'

// What the plan says a run takes is what it takes. A short form of `npm run bench:memory`, which tries twenty shapes.

const folder = temporaryFolder()
const model = join(folder, 'model')
const train = join(folder, 'train.jsonl')

beforeAll(async () => {
  const shape = join(folder, 'shape')
  cpSync(quickstart, shape, { recursive: true, filter: (path) => !path.endsWith('.safetensors') })
  const config = {
    ...(readJson(join(shape, 'config.json')) as object),
    hidden_size: 512,
    intermediate_size: 1536,
    num_hidden_layers: 12,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    head_dim: 64,
  }
  writeFileSync(join(shape, 'config.json'), JSON.stringify(config))
  writeFileSync(train, `${JSON.stringify({ prompt: 'a', completion: ' b c'.repeat(500) })}\n`.repeat(16))
  const mixed = Array.from({ length: 16 }, (_, i) => ({
    prompt: 'a',
    completion: ' b c'.repeat(i === 0 ? 500 : 5 + 3 * i),
  }))
  writeFileSync(join(folder, 'mixed.jsonl'), mixed.map((example) => `${JSON.stringify(example)}\n`).join(''))
  const options = { method: 'full', init: 'random', maxSteps: 1, maxLength: 8, perDeviceTrainBatchSize: 1 }
  const run = await lowrank([
    'train',
    ...flags({ ...options, model: shape, train, outputDir: model, saveDtype: 'bf16' }),
  ])
  expect(run.code, run.stderr).toBe(0)
  const quantized = await lowrank(['quantize', ...flags({ model, output: join(folder, 'nf4') })])
  expect(quantized.code, quantized.stderr).toBe(0)
}, 120_000)

const [keep, recompute] = [{ activations: 'keep' }, { activations: 'recompute' }]
test.each([
  ['lora, kept', { method: 'lora', ...keep }],
  [
    'lora, packed',
    {
      method: 'lora',
      train: join(folder, 'mixed.jsonl'),
      packing: true,
      maxLength: 512,
      perDeviceTrainBatchSize: 16,
      ...keep,
    },
  ],
  ['qlora, recomputed', { method: 'qlora', ...recompute }],
  ['qlora, blocks on disk', { model: join(folder, 'nf4'), memory: '380MB' }],
  ['full, recomputed, 8-bit optimizer', { method: 'full', optim: 'adamw-8bit', ...recompute }],
])(
  '%s',
  async (name, options) => {
    const outputDir = join(folder, name)
    const shared = {
      model,
      train,
      outputDir,
      maxLength: 192,
      perDeviceTrainBatchSize: 4,
      maxSteps: 2,
      saveStrategy: 'no',
    }
    const { code, stderr } = await lowrank(['train', ...flags({ ...shared, ...options })])
    expect(code, stderr).toBe(0)
    const [plan] = only(readMetrics(outputDir), 'plan')
    const expected = plan?.memory.expected ?? 0
    const { peakMemory } = readJson(join(outputDir, 'run.json')) as { peakMemory: number }
    const megabytes = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`
    console.log(`${name}: ${megabytes(expected)} expected, ${megabytes(peakMemory)} taken`)
    expect(peakMemory).toBeLessThan(1.1 * expected)
    expect(peakMemory).toBeGreaterThan(0.8 * expected)
  },
  120_000,
)
