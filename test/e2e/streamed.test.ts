import { readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { writeRandomModel } from '../../scripts/random-nf4.ts'
import { parseTrainConfig } from '../../src/config/index.ts'
import type { MemoryChoice } from '../../src/config/index.ts'
import { openDecoder } from '../../src/session/decoder.ts'
import type { Example } from '../../src/text/example.ts'
import { startTraining, train } from '../../src/train/trainer.ts'
import { all, flags, lowrank, only, quickstart, readJson, readMetrics, temporaryFolder } from './support.ts'

const folder = temporaryFolder()
const [large, small] = [join(folder, 'large'), join(folder, 'small')]
const data = join(folder, 'train.jsonl')
// Short, since what is looked at is how weights are read.
const line = (i: number): string => JSON.stringify({ prompt: `Ticket ${i}:`, completion: ' billing' })
writeFileSync(data, [0, 1, 2, 3].map(line).join('\n'))

const config = {
  train: data,
  method: 'qlora',
  r: 4,
  loraDropout: 0.1,
  maxLength: 16,
  perDeviceTrainBatchSize: 1,
  gradientAccumulationSteps: 2,
  saveStrategy: 'no',
  activations: 'recompute',
} as const

beforeAll(async () => {
  const shape = { layers: 132, hidden: 512, ffn: 4096, heads: 8, kvHeads: 2, vocabulary: 2496 }
  await writeRandomModel(large, shape, quickstart)
  await writeRandomModel(small, { ...shape, layers: 3, hidden: 64, ffn: 192 }, quickstart)
})

/** The real command line. */
async function run(name: string, options: object): Promise<{ stderr: string; code: number | null; outputDir: string }> {
  const outputDir = join(folder, name)
  return { ...(await lowrank(['train', ...flags({ ...config, ...options, outputDir })])), outputDir }
}

// The same code path as that of 70 billion parameters, scaled down.
test('a model larger than the memory that a run is bound to is read block by block, within the bound', async () => {
  const bound = 332e6
  const size = readdirSync(large)
    .filter((name) => name.endsWith('.safetensors'))
    .reduce((total, name) => total + statSync(join(large, name)).size, 0)
  expect(size).toBeGreaterThan(1.4 * bound)
  const { code, stderr, outputDir } = await run('streamed', { model: large, memory: bound, maxSteps: 1 })
  expect(code, stderr).toBe(0)

  const [plan] = only(readMetrics(outputDir), 'plan')
  expect(plan?.streamed).toEqual({ group: 2 })
  const { peakMemory } = readJson(join(outputDir, 'run.json')) as { peakMemory: number }
  console.log(
    `streamed: ${size / 1e6} MB on disk, peak ${peakMemory / 1e6} MB, ${plan!.memory.expected / 1e6} MB expected`,
  )
  expect(peakMemory).toBeLessThan(bound)
  // Forward and backward of each step read every block once, however many micro-batches there are.
  const [step] = only(readMetrics(outputDir), 'step')
  expect(step?.bytesRead).toBeGreaterThan(1.8 * size)
  expect(step?.bytesRead).toBeLessThan(2.2 * size)
}, 120_000)

test('blocks on disk: the same bytes as in memory', async () => {
  const examples = Array.from({ length: 6 }, (_, i): Example => {
    const length = 6 + 2 * i
    const ids = Int32Array.from({ length }, (_, t) => 10 + ((31 * i + 7 * t) % 2400))
    return { ids, labelMask: new Uint8Array(length).fill(1, 3), line: i + 1 }
  })
  const options = parseTrainConfig({
    ...config,
    model: small,
    valid: data,
    outputDir: folder,
    maxSteps: 3,
    learningRate: 1e-2,
  })
  const trained = async (choice: Partial<MemoryChoice>) => {
    const training = { lora: options, init: 'pretrained', seed: 1 } as const
    const decoder = await openDecoder({ model: small, training, choice })
    const run = startTraining({ ...decoder, config: options, examples })
    const saveCheckpoint = (): Promise<string> => Promise.resolve('')
    const events = train(run, { valid: examples, trial: undefined, saveCheckpoint, cancelled: () => false })
    const reported = await all(events)
    const weights = [...decoder.trainables.values()].map(({ data }) => data)
    await decoder.close()
    const steps = only(reported, 'step')
    return {
      figures: [
        ...steps.map(({ loss, gradNorm }) => [loss, gradNorm]),
        ...only(reported, 'eval').map(({ loss }) => loss),
      ],
      bytesRead: steps.map(({ bytesRead }) => bytesRead),
      weights,
    }
  }
  const resident = await trained({ activations: 'recompute', headRows: 128 })
  expect(resident.bytesRead).toEqual([0, 0, 0])
  expect(resident.figures).toHaveLength(4)
  for (const group of [1, 2]) {
    const streamed = await trained({ activations: 'recompute', headRows: 32, streamed: { group } })
    for (const bytes of streamed.bytesRead) expect(bytes).toBeGreaterThan(0)
    expect(streamed.figures).toEqual(resident.figures)
    expect(streamed.weights).toEqual(resident.weights)
  }
})

test('a bound that is too small is refused before anything is read or written', async () => {
  const { code, stderr, outputDir } = await run('refused', { model: small, memory: 100e6, maxSteps: 1 })
  expect(code).toBe(2)
  expect(stderr).toMatch(
    /memory is bound to 100 MB, but the smallest plan for this run takes \d+ MB: runtime 220 MB, .*\n/,
  )
  expect(stderr).toContain('What takes less: ')
  expect(() => statSync(outputDir)).toThrow('ENOENT')
})
