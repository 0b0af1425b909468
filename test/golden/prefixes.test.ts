import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openDecoder, type OpenDecoder } from '../../src/session/decoder.ts'
import { batchOfRows, exampleLosses, makeBatch, type Batch } from '../../src/text/batches.ts'
import type { Example } from '../../src/text/example.ts'
import { layOut, type LayoutOptions } from '../../src/text/layout.ts'
import { evaluateBatches } from '../../src/train/evaluate.ts'
import { accumulateGradients } from '../../src/train/step.ts'
import { Draws } from '../draws.ts'
import { writeModel } from './family-model.ts'

/*
 * Rows that share what examples begin with, against rows of one example each, on the tiny models of families whose separate losses and
 * gradients are PyTorch's (families.test.ts): sliding windows of several layer kinds, layers without positions, scores with a cap, angles that
 * depend on the length.
 */

const cases = ['mistral', 'gemma3', 'smollm3', 'gemma2', 'qwen2-dynamic', 'phi3']
const vocabulary = 48

const largest = new Map<string, number>()
const note = (what: string, difference: number): number => {
  largest.set(what, Math.max(largest.get(what) ?? 0, difference))
  return difference
}
afterAll(() => {
  const found = [...largest].map(([what, difference]) => `${what} ${difference.toExponential(1)}`)
  console.info(`largest differences of shared from separate: ${found.join(', ')}`)
})

/**
 * Examples that are paths of a random tree of two levels, as an instruction, documents and questions: some end where others go on, some come
 * twice, some have a label early, some share nothing.
 */
function randomTree(draws: Draws): Example[] {
  const tokens = (low: number, high: number): number[] =>
    Array.from({ length: draws.between(low, high) }, () => draws.between(3, vocabulary - 1))
  const examples: Example[] = []
  const add = (path: readonly number[], labels: number, early = 0): void => {
    const labelMask = new Uint8Array(path.length).fill(1, path.length - labels)
    if (early > 0) labelMask[early] = 1
    examples.push({ ids: Int32Array.from(path), labelMask, line: examples.length + 1 })
  }
  const instruction = tokens(12, 16)
  for (let document = 0; document < 3; document++) {
    const path = [...instruction, ...tokens(9, 12)]
    const questions = draws.between(2, 4)
    for (let question = 0; question < questions; question++) {
      const answered = [...path, ...tokens(3, 9)]
      add(answered, draws.between(1, 3), draws.chance(0.2) ? draws.between(2, 20) : 0)
      if (draws.chance(0.3)) add(answered, 1)
    }
    if (draws.chance(0.7)) add(path, 2)
  }
  add(tokens(5, 30), 3)
  add(tokens(5, 30), 1)
  return examples
}

interface Found {
  readonly losses: ReadonlyMap<Example, number>
  readonly gradients: ReadonlyMap<string, Float32Array>
}

async function step({ pipeline, trainables }: OpenDecoder, batches: readonly Batch[]): Promise<Found> {
  const losses = new Map<Example, number>()
  const onLosses = (found: Float32Array, index: number): void => {
    for (const { example, lossSum } of exampleLosses(batches[index]!, found)) losses.set(example, lossSum)
  }
  await accumulateGradients({ pipeline, trainables, batches, seed: 1, step: 1, onLosses })
  const gradients = new Map([...trainables].map(([name, { gradient }]) => [name, gradient.slice()]))
  for (const { gradient } of trainables.values()) gradient.fill(0)
  return { losses, gradients }
}

const layouts: Readonly<Record<string, LayoutOptions>> = {
  'shared rows': { batchSize: 6 },
  'shared rows, packed': { batchSize: 6, packing: true },
  'small micro-batches of padded rows': { batchSize: 3, padToMultipleOf: 8 },
}

function sharedBatches({ regimeOf }: OpenDecoder, examples: readonly Example[], name: string): Batch[] {
  const options: LayoutOptions = { ...layouts[name]!, sharePrefixes: true, regimeOf }
  const longest = Math.max(...examples.map(({ ids }) => ids.length))
  const batches = layOut(examples, longest, options).map((rows) => batchOfRows(rows, options))
  // Of two levels of the tree.
  expect(new Set(batches.flatMap(({ shared }) => [...shared])).size).toBeGreaterThan(2)
  return batches
}

describe.each(cases)('%s', (name) => {
  let model: string
  beforeAll(async () => {
    model = await mkdtemp(join(tmpdir(), 'lowrank-prefixes-'))
    await writeModel(name, model)
  })
  afterAll(() => rm(model, { recursive: true }))

  const open = (trained: 'full' | 'adapter', activations: 'keep' | 'recompute'): Promise<OpenDecoder> =>
    openDecoder({
      model,
      ...(trained === 'adapter' ? { adapter: join(model, 'adapter') } : {}),
      training: { lora: undefined, init: 'pretrained', seed: 1 },
      choice: { activations, expandWeights: false },
    })

  test.each([
    ['full', 'keep'],
    ['full', 'recompute'],
    ['adapter', 'keep'],
    ['adapter', 'recompute'],
  ] as const)('%s, %s: losses and gradients are those of separate examples', async (trained, activations) => {
    const decoder = await open(trained, activations)
    const draws = new Draws(7, `${name} ${trained} ${activations}`)
    for (let tree = 0; tree < 2; tree++) {
      const examples = randomTree(draws)
      const separate = await step(decoder, [makeBatch(examples)])
      for (const layout of Object.keys(layouts)) {
        const found = await step(decoder, sharedBatches(decoder, examples, layout))
        expect(found.losses.size).toBe(examples.length)
        for (const [example, loss] of separate.losses) {
          const difference = Math.abs((found.losses.get(example) ?? NaN) - loss) / Math.max(1, loss)
          expect.soft(note('loss of an example', difference), `${layout}, line ${example.line}`).toBeLessThan(1e-5)
        }
        for (const [key, reference] of separate.gradients) {
          const gradient = found.gradients.get(key)!
          const scale = reference.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
          // A bias of keys that are not rotated adds the same to all scores of a query: its gradient is rounding.
          if (key.endsWith('k_proj.bias') && scale < 1e-4) continue
          const worst = reference.reduce((most, value, i) => Math.max(most, Math.abs(value - gradient[i]!)), 0)
          expect.soft(note('gradients', worst / scale), `${layout}, ${key}`).toBeLessThan(1e-5)
        }
      }
    }
    await decoder.close()
  })

  test('evaluations too', async () => {
    const decoder = await open('adapter', 'recompute')
    const examples = randomTree(new Draws(8, name))
    const separate = await evaluateBatches({ pipeline: decoder.pipeline, batches: [makeBatch(examples)] })
    const batches = sharedBatches(decoder, examples, 'shared rows')
    const found = await evaluateBatches({ pipeline: decoder.pipeline, batches })
    expect(Math.abs(found.loss - separate.loss)).toBeLessThan(1e-5)
    expect(found).toMatchObject({ tokenAccuracy: separate.tokenAccuracy, examples: examples.length })
    await decoder.close()
  })
})
