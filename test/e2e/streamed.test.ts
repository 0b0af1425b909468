import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { writeRandomModel } from '../../scripts/random-nf4.ts'
import { flags, lowrank, only, quickstart, readJson, readMetrics, temporaryFolder } from './support.ts'

// A model larger than the memory it is bound to: the same code path as that of 70 billion parameters, scaled down.

const folder = temporaryFolder()
const model = join(folder, 'model')
// Short, since what is looked at is how weights are read.
const data = { train: join(folder, 'train.jsonl'), valid: join(folder, 'valid.jsonl') }
const line = (i: number): string => JSON.stringify({ prompt: `Ticket ${i}:`, completion: ' billing' })
writeFileSync(data.train, [0, 1, 2, 3].map(line).join('\n'))
writeFileSync(data.valid, line(4))
const shape = { layers: 96, hidden: 1024, ffn: 4096, heads: 16, kvHeads: 4, vocabulary: 2496 }
const bound = 530e6

const config = {
  model,
  ...data,
  method: 'qlora',
  r: 4,
  loraDropout: 0.1,
  maxLength: 16,
  perDeviceTrainBatchSize: 1,
  gradientAccumulationSteps: 2,
  maxSteps: 1,
  saveStrategy: 'no',
  activations: 'recompute',
} as const

beforeAll(() => writeRandomModel(model, shape, quickstart), 120_000)

async function run(name: string, options: object): Promise<{ stderr: string; code: number | null; outputDir: string }> {
  const outputDir = join(folder, name)
  return { ...(await lowrank(['train', ...flags({ ...config, ...options, outputDir })])), outputDir }
}

test('blocks on disk: the same bytes as in memory, within the bound', async () => {
  const size = readdirSync(model)
    .filter((name) => name.endsWith('.safetensors'))
    .reduce((total, name) => total + statSync(join(model, name)).size, 0)
  expect(size).toBeGreaterThan(1.4 * bound)
  const streamed = await run('streamed', { memory: bound })
  expect(streamed.code, streamed.stderr).toBe(0)
  const resident = await run('resident', {})
  expect(resident.code, resident.stderr).toBe(0)

  const [plan] = only(readMetrics(streamed.outputDir), 'plan')
  expect(plan?.streamed).toEqual({ group: 2 })
  expect(only(readMetrics(resident.outputDir), 'plan')[0]?.streamed).toBeUndefined()
  const { peakMemory } = readJson(join(streamed.outputDir, 'run.json')) as { peakMemory: number }
  console.log(
    `streamed: ${size / 1e6} MB on disk, peak ${peakMemory / 1e6} MB, ${plan!.memory.expected / 1e6} MB expected`,
  )
  expect(peakMemory).toBeLessThan(bound)
  // Forward and backward of each step read every block once, however many micro-batches there are.
  for (const { bytesRead } of only(readMetrics(streamed.outputDir), 'step')) {
    expect(bytesRead).toBeGreaterThan(1.8 * size)
    expect(bytesRead).toBeLessThan(2.2 * size)
  }
  expect(only(readMetrics(resident.outputDir), 'step').map(({ bytesRead }) => bytesRead)).toEqual([0])

  const losses = [streamed, resident].map(({ outputDir }) =>
    only(readMetrics(outputDir), 'step').map(({ loss, gradNorm }) => [loss, gradNorm]),
  )
  expect(losses[0]).toEqual(losses[1])
  const adapters = [streamed, resident].map(({ outputDir }) =>
    readFileSync(join(outputDir, 'adapter_model.safetensors')),
  )
  expect(adapters[0]!.equals(adapters[1]!)).toBe(true)
}, 240_000)

test('a bound that is too small is refused before anything is read or written', async () => {
  const { code, stderr, outputDir } = await run('refused', { memory: 100e6 })
  expect(code).toBe(2)
  expect(stderr).toMatch(
    /memory is bound to 100 MB, but the smallest plan for this run takes \d+ MB: runtime 250 MB, .*\n/,
  )
  expect(stderr).toContain('What takes less: ')
  expect(() => statSync(outputDir)).toThrow('ENOENT')
})
