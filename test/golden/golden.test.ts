import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openSafetensors, type TensorReader } from '../../src/formats/safetensors.ts'
import { inverseFrequencies, ropeTables } from '../../src/model/rope.ts'
import type { Rope } from '../../src/model/decoder.ts'
import { openDecoder, type OpenDecoder } from '../../src/session/decoder.ts'
import { makeBatch, type Batch } from '../../src/text/batches.ts'
import { evaluateBatches } from '../../src/train/evaluate.ts'
import { AdamW, clipFactor, gradientNorm } from '../../src/train/optimizer.ts'
import { learningRates } from '../../src/train/schedule.ts'
import { accumulateGradients } from '../../src/train/step.ts'

/** Beside the script that made them, `make_golden.py`. */
const golden = fileURLToPath(new URL('.', import.meta.url))

interface Golden {
  readonly optimizer: {
    readonly steps: number
    readonly warmupSteps: number
    readonly maxGradNorm: number
    readonly betas: readonly [number, number]
    readonly eps: number
    readonly weight_decay: number
  }
  readonly runs: Readonly<
    Record<string, readonly { readonly loss: number; readonly labelTokens: number; readonly tokenAccuracy: number }[]>
  >
  readonly curves: Readonly<
    Record<
      string,
      { readonly learningRate: number; readonly loss: readonly number[]; readonly gradNorm: readonly number[] }
    >
  >
}
interface Inputs {
  readonly batches: readonly (readonly { readonly ids: readonly number[]; readonly labelMask: readonly number[] }[])[]
}

/** The largest differences found, a line at the end: how far from the tolerances they are. */
const largest = new Map<string, number>()
const note = (what: string, difference: number): void => {
  largest.set(what, Math.max(largest.get(what) ?? 0, difference))
}
afterAll(() => {
  const found = [...largest].map(([what, difference]) => `${what} ${difference.toExponential(1)}`)
  console.info(`largest differences from PyTorch: ${found.join(', ')}`)
})

const readJson = async <T>(...path: string[]): Promise<T> =>
  JSON.parse(await readFile(join(golden, ...path), 'utf8')) as T
const readFloats = async (reader: TensorReader, name: string): Promise<Float32Array> =>
  new Float32Array((await reader.read(name)).buffer)

const runs = [
  ['gqa-tied', 'base'],
  ['gqa-tied', 'adapter'],
  ['gqa-tied', 'adapter-saved-head'],
  ['bias-untied', 'base'],
  ['bias-untied', 'adapter'],
] as const

describe.each(runs)('%s, %s', (folder, run) => {
  const model = join(golden, folder)
  const adapter = run === 'base' ? undefined : join(model, run)
  let tensors: TensorReader
  let values: Golden
  let batches: Batch[]

  beforeAll(async () => {
    tensors = await openSafetensors(join(model, 'golden.safetensors'))
    values = await readJson<Golden>(folder, 'golden.json')
    const inputs = await readJson<Inputs>(folder, 'inputs.json')
    batches = inputs.batches.map((examples) =>
      makeBatch(
        examples.map(({ ids, labelMask }) => ({
          ids: Int32Array.from(ids),
          labelMask: Uint8Array.from(labelMask),
          line: 1,
        })),
      ),
    )
  })
  afterAll(() => tensors.close())

  const openTrained = (activations: 'keep' | 'recompute' = 'keep'): Promise<OpenDecoder> =>
    openDecoder({
      model,
      adapter,
      threads: 2,
      training: { lora: undefined, init: 'pretrained', seed: 1 },
      choice: { activations, expandWeights: activations === 'keep' },
    })
  const batchAt = (i: number): Batch => batches[i % batches.length] as Batch

  test('loss and accuracy', async () => {
    const decoder = await openDecoder({ model, adapter, threads: 2 })
    for (const [i, expected] of (values.runs[run] ?? []).entries()) {
      const found = await evaluateBatches({ pipeline: decoder.pipeline, batches: [batchAt(i)] })
      note('loss', Math.abs(found.loss - expected.loss))
      expect(Math.abs(found.loss - expected.loss)).toBeLessThan(1e-5)
      expect(found.tokenAccuracy).toBeCloseTo(expected.tokenAccuracy, 6)
      expect(found.labelTokens).toBe(expected.labelTokens)
    }
    await decoder.close()
  })

  test('logits within 1e-4', async () => {
    const decoder = await openDecoder({ model, adapter, threads: 2 })
    const expected = await readFloats(tensors, `${run}.logits`)
    const { rows, ids, seq } = batchAt(0)
    const vocabulary = decoder.config.vocabSize
    expect(expected.length).toBe(rows.length * vocabulary)
    let worst = 0
    for (const [i, row] of rows.entries()) {
      const start = row - (row % seq)
      const found = await decoder.pipeline.nextLogits(ids.slice(start, row + 1))
      found.forEach((value, j) => {
        worst = Math.max(worst, Math.abs(value - (expected[i * vocabulary + j] ?? Infinity)))
      })
    }
    note('logits', worst)
    expect(worst).toBeLessThan(1e-4)
    await decoder.close()
  })

  test.each(['keep', 'recompute'] as const)(
    'every gradient within 1e-4 of its largest entry, activations %s',
    async (activations) => {
      const decoder = await openTrained(activations)
      const { pipeline, trainables, adaptation } = decoder
      const sums = await accumulateGradients({ pipeline, trainables, batches: [batchAt(0)], seed: 1, step: 1 })
      const labels = sums.labelTokens
      const wanted = [...tensors.tensors.keys()].filter((name) => name.startsWith(`${run}.grad.`))
      expect([...trainables.keys()].map((name) => `${run}.grad.${adaptation.fileName(name)}`).sort()).toEqual(
        wanted.sort(),
      )
      for (const [name, { gradient }] of trainables) {
        const expected = await readFloats(tensors, `${run}.grad.${adaptation.fileName(name)}`)
        const scale = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
        const worst = expected.reduce(
          (most, value, i) => Math.max(most, Math.abs(value - (gradient[i] ?? NaN) / labels)),
          0,
        )
        note('gradients', worst / scale)
        expect.soft(worst / scale, name).toBeLessThan(1e-4)
      }
      await decoder.close()
    },
  )

  test('20 losses within 1e-3', async () => {
    const curve = values.curves[run]
    if (curve === undefined) throw new Error(`no curve ${run}`)
    const { pipeline, trainables, close } = await openTrained()
    const { steps, warmupSteps, maxGradNorm, betas, eps, weight_decay: weightDecay } = values.optimizer
    const optimizer = new AdamW(trainables.values(), {
      beta1: betas[0],
      beta2: betas[1],
      epsilon: eps,
      weightDecay,
      decays: () => true,
    })
    const { learningRate } = curve
    const rateOf = learningRates({ learningRate, lrSchedulerType: 'linear', warmupSteps, warmupRatio: 0 }, steps)
    const losses: number[] = []
    for (let step = 0; step < steps; step++) {
      const sums = await accumulateGradients({ pipeline, trainables, batches: [batchAt(step)], seed: 1, step })
      const norm = gradientNorm(trainables.values()) / sums.labelTokens
      optimizer.step(rateOf(step), clipFactor(norm, maxGradNorm) / sums.labelTokens)
      losses.push(sums.lossSum / sums.labelTokens)
    }
    const worst = losses.reduce((most, loss, i) => Math.max(most, Math.abs(loss - (curve.loss[i] ?? NaN))), 0)
    note('20 losses', worst)
    expect(losses).toHaveLength(20)
    expect(worst).toBeLessThan(1e-3)
    await close()
  })
})

test('the same gradient however a step is split', async () => {
  const inputs = await readJson<Inputs>('gqa-tied', 'inputs.json')
  const examples = inputs.batches
    .flat()
    .map(({ ids, labelMask }) => ({ ids: Int32Array.from(ids), labelMask: Uint8Array.from(labelMask), line: 1 }))
  expect(examples).toHaveLength(8)
  const model = join(golden, 'gqa-tied')
  const gradientsOf = async (size: number): Promise<Map<string, Float32Array>> => {
    const { pipeline, trainables, close } = await openDecoder({
      model,
      adapter: join(model, 'adapter'),
      threads: 2,
      training: { lora: undefined, init: 'pretrained', seed: 1 },
      choice: { activations: 'keep' },
    })
    const batches = Array.from({ length: 8 / size }, (_, i) => makeBatch(examples.slice(i * size, (i + 1) * size)))
    await accumulateGradients({ pipeline, trainables, batches, seed: 1, step: 1 })
    await close()
    return new Map([...trainables].map(([name, { gradient }]) => [name, gradient]))
  }
  const whole = await gradientsOf(8)
  for (const size of [4, 2]) {
    for (const [name, gradient] of await gradientsOf(size)) {
      const reference = whole.get(name) ?? new Float32Array()
      const scale = reference.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      const worst = gradient.reduce((most, value, i) => Math.max(most, Math.abs(value - (reference[i] ?? NaN))), 0)
      note('split steps', worst / scale)
      expect.soft(worst / scale, `${name}, ${size} at a time`).toBeLessThan(1e-6)
    }
  }
})

describe('rotary tables', async () => {
  const { positions, cases } = await readJson<{
    positions: number[]
    cases: Record<string, { headDim: number; ropeParameters: Record<string, number | string> }>
  }>('rope', 'golden.json')
  test.each(Object.entries(cases))('%s', async (name, { headDim, ropeParameters: p }) => {
    const rope: Rope = {
      theta: Number(p['rope_theta']),
      channels: headDim,
      scaling:
        p['rope_type'] === 'llama3'
          ? {
              type: 'llama3',
              factor: Number(p['factor']),
              lowFrequencyFactor: Number(p['low_freq_factor']),
              highFrequencyFactor: Number(p['high_freq_factor']),
              originalMaxPositions: Number(p['original_max_position_embeddings']),
            }
          : p['rope_type'] === 'linear'
            ? { type: 'linear', factor: Number(p['factor']) }
            : { type: 'default' },
    }
    const tensors = await openSafetensors(join(golden, 'rope', 'golden.safetensors'))
    const frequencies = await readFloats(tensors, `${name}.inv_freq`)
    const half = headDim / 2
    inverseFrequencies(rope, 1).forEach((value, i) => {
      expect(Math.abs(value / (frequencies[i] ?? NaN) - 1)).toBeLessThan(3e-7)
    })
    const tables = ropeTables(rope, Math.max(...positions) + 1)
    for (const table of ['cos', 'sin'] as const) {
      const expected = await readFloats(tensors, `${name}.${table}`)
      positions.forEach((position, row) => {
        for (let i = 0; i < half; i++) {
          // An angle of thousands of radians in f32 is known to some 1e-4 only; small ones must agree to rounding.
          const tolerance = 1e-6 + 2.5e-7 * position
          const found = tables[table][position * half + i] ?? NaN
          expect(Math.abs(found - (expected[row * headDim + i] ?? NaN))).toBeLessThan(tolerance)
        }
      })
    }
    await tensors.close()
  })
})
