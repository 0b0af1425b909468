import { totalmem } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { MemoryChoice } from '../config/index.ts'
import { addressesAreLimited } from '../util/limits.ts'
import { frugal, PreparedDecoder } from './decoder.ts'
import type { Workload } from './memory-items.ts'
import { headRowsOf, mayFallShort, planMemory } from './plan.ts'

const quickstart = join(import.meta.dirname, '../../examples/quickstart/model')
const lora = {
  r: 8,
  loraAlpha: 16,
  targetModules: ['q_proj'],
  loraDropout: 0,
  bias: 'none',
  useRslora: false,
} as const
const workload: Workload = {
  training: { batch: 4, seq: 256, rows: 512 },
  evaluation: undefined,
  microBatches: 1,
  stateBytes: (_, count) => 8 * count,
  keepsBest: false,
  data: 0,
}

test('as the bound falls, the next best choice is made, each of less memory', async () => {
  const prepared = await PreparedDecoder.open({
    model: quickstart,
    training: { lora, init: 'pretrained', seed: 1 },
  })
  const made: MemoryChoice[] = []
  for (let bound = 64e9; ;) {
    try {
      const { expected, activations, expandWeights, headRows, matmulPrecision } = planMemory(prepared, workload, {
        setting: 'auto',
        bound,
      })
      expect(expected).toBeLessThanOrEqual(bound)
      made.push({ activations, expandWeights, headRows, matmulPrecision })
      bound = expected - 1
    } catch (error) {
      expect(error).toMatchObject({ code: 'config', message: expect.stringContaining('the smallest plan') as string })
      break
    }
  }
  await prepared.close()
  expect(made).toEqual([
    { activations: 'keep', expandWeights: true, headRows: 512, matmulPrecision: 'highest' },
    { activations: 'keep', expandWeights: true, headRows: 128, matmulPrecision: 'highest' },
    { activations: 'keep', expandWeights: false, headRows: 128, matmulPrecision: 'highest' },
    { activations: 'recompute', expandWeights: false, headRows: 128, matmulPrecision: 'highest' },
    { activations: 'recompute', expandWeights: false, headRows: 32, matmulPrecision: 'highest' },
  ])
})

test('logits of a chunk take no more than 268 MB', () => {
  expect(headRowsOf({ vocabSize: 49_152 })).toEqual([512, 128, 32])
  expect(headRowsOf({ vocabSize: 262_144 })).toEqual([256, 128, 32])
  expect(headRowsOf({ vocabSize: 4_000_000 })).toEqual([16, 16, 16])
})

test('a plan far below what is free needs no trial, unless there is a bound', () => {
  const plan = { ...frugal, items: [], smaller: [], bound: undefined }
  // Limits on addresses of whoever runs the tests are bounds, too.
  if (!addressesAreLimited()) expect(mayFallShort({ ...plan, expected: 1e6 })).toBe(false)
  expect(mayFallShort({ ...plan, expected: 1e6, bound: 64e9 })).toBe(true)
  expect(mayFallShort({ ...plan, expected: 0.6 * totalmem() })).toBe(true)
})
