import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { writeRandomModel } from '../../scripts/random-nf4.ts'
import { flags, lowrank, only, quickstart, readJson, readMetrics, temporaryFolder } from './support.ts'

// What the plan says a run takes is what it takes, for each part of it that can be large. More shapes: `npm run bench:memory`.

const folder = temporaryFolder()
const shape = { layers: 10, hidden: 192, ffn: 512, heads: 12, kvHeads: 4, vocabulary: 2496 }
const models = {
  /** Little to multiply and much to keep: long rows go through it. */
  narrow: shape,
  /** What is recomputed is that of one block. */
  flat: { ...shape, layers: 2 },
  /** Weights that take far more than what is computed of a short row. */
  wide: { layers: 12, hidden: 768, ffn: 2048, heads: 12, kvHeads: 4, vocabulary: 2496 },
}
const model = (name: keyof typeof models): string => join(folder, name)

/** Examples of about so many tokens. */
function data(name: string, tokens: readonly number[]): string {
  const path = join(folder, `${name}.jsonl`)
  const lines = tokens.map((n) => `${JSON.stringify({ prompt: 'a', completion: ' b c'.repeat(n / 2) })}\n`)
  writeFileSync(path, lines.join(''))
  return path
}

const long = { train: data('long', [1100, 1100, 1100, 1100]), maxLength: 1024 }
const mixed = { train: data('mixed', [1100, ...Array<number>(15).fill(180)]), maxLength: 1024 }
const wide = { model: model('wide'), train: data('short', [40, 40]), maxLength: 32 }
const [keep, recompute] = [{ activations: 'keep' }, { activations: 'recompute' }]

beforeAll(async () => {
  for (const [name, shape] of Object.entries(models)) {
    await writeRandomModel(join(folder, name), shape, quickstart, { storage: 'BF16' })
  }
})

test.each([
  [
    'lora on all layers with dropout, packed, kept',
    {
      ...mixed,
      ...keep,
      model: model('narrow'),
      packing: true,
      perDeviceTrainBatchSize: 16,
      targetModules: 'all-linear',
      loraDropout: 0.1,
    },
  ],
  ['lora, recomputed', { ...long, ...recompute, model: model('flat') }],
  ['qlora, kept', { ...wide, ...keep, method: 'qlora' }],
  ['8 bits, recomputed', { ...wide, ...recompute, method: 'qlora', loadIn8bit: true }],
  ['full, kept', { ...wide, ...keep, method: 'full' }],
  ['full, recomputed, 8-bit optimizer', { ...wide, ...recompute, method: 'full', optim: 'adamw-8bit' }],
])(
  '%s',
  async (name, options) => {
    const outputDir = join(folder, name)
    const shared = { outputDir, perDeviceTrainBatchSize: 4, maxSteps: 1, saveStrategy: 'no' }
    const { code, stderr } = await lowrank(['train', ...flags({ ...shared, ...options })])
    expect(code, stderr).toBe(0)
    const [plan] = only(readMetrics(outputDir), 'plan')
    const expected = plan?.memory.expected ?? 0
    const { peakMemory } = readJson(join(outputDir, 'run.json')) as { peakMemory: number }
    const apart = Math.abs(peakMemory - expected)
    const megabytes = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`
    console.log(
      `${name}: ${megabytes(expected)} expected, ${megabytes(peakMemory)} taken`,
      plan?.memory.items,
      process.cpuUsage(),
    )
    expect(apart).toBeLessThan(Math.max(0.1 * expected, 200e6))
  },
  120_000,
)
