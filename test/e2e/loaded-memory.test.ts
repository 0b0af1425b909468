import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import { writeRandomModel } from '../../scripts/random-nf4.ts'
import { PreparedDecoder } from '../../src/session/decoder.ts'
import { memoryItems } from '../../src/session/memory-items.ts'
import { quickstart, temporaryFolder } from './support.ts'

// Weights take the memory that the plan says, each of them in one form only.

const folder = temporaryFolder()
const shape = { layers: 1, hidden: 256, ffn: 512, heads: 4, kvHeads: 2, vocabulary: 40_000 }

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

/** What is in memory outside of the heap of objects. */
async function memory(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    collectGarbage()
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  return process.memoryUsage().arrayBuffers
}

const lora = {
  r: 8,
  loraAlpha: 16,
  targetModules: ['q_proj'],
  loraDropout: 0,
  bias: 'none',
  useRslora: false,
} as const
const workload = {
  training: undefined,
  evaluation: { batch: 1, seq: 4, rows: 1 },
  microBatches: 1,
  stateBytes: () => 0,
  keepsBest: false,
  data: 0,
}

test.each([
  { storage: 'BF16', tied: false, expandWeights: true },
  { storage: 'BF16', tied: false, expandWeights: false },
  { storage: 'BF16', tied: true, expandWeights: true },
  { storage: 'nf4', tied: false, expandWeights: true },
  { storage: 'F32', tied: false, expandWeights: true },
] as const)('$storage, tied $tied, expanded $expandWeights', async ({ storage, tied, expandWeights }) => {
  const model = join(folder, `${storage} ${tied} ${expandWeights}`)
  await writeRandomModel(model, { ...shape, tied }, quickstart, { storage })
  const prepared = await PreparedDecoder.open({ model, training: { lora, init: 'pretrained', seed: 1 } })
  const choice = { activations: 'keep', expandWeights, headRows: 32, matmulPrecision: 'highest' } as const
  const planned = memoryItems(prepared, workload, choice).find(({ what }) => what === 'base weights')?.bytes ?? 0
  const before = await memory()
  const decoder = await prepared.load(choice)
  const taken = (await memory()) - before
  await decoder.close()
  expect(planned).toBeGreaterThan(20e6)
  // And adapters, for which another item stands.
  expect(taken).toBeGreaterThan(0.99 * planned)
  expect(taken).toBeLessThan(1.01 * planned)
})
