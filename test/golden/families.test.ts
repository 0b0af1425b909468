import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { openSafetensors, type TensorReader } from '../../src/formats/safetensors.ts'
import { type MemoryChoice, quantizationOf } from '../../src/config/index.ts'
import type { DecoderConfig, FamilyName } from '../../src/model/decoder.ts'
import { families } from '../../src/model/families/index.ts'
import type { DecoderOptions } from '../../src/session/decoder.ts'
import { openDecoder, type OpenDecoder } from '../../src/session/decoder.ts'
import { runQuantize } from '../../src/tasks/quantize.ts'
import { batchOf, makeBatch, type Batch } from '../../src/text/batches.ts'
import type { Example } from '../../src/text/example.ts'
import { evaluateBatches } from '../../src/train/evaluate.ts'
import { AdamW } from '../../src/train/optimizer.ts'
import { accumulateGradients } from '../../src/train/step.ts'
import { resultOf } from '../../src/util/task.ts'
import { cases, folder, type Golden, readGolden, writeModel } from './family-model.ts'

/*
 * Every family against transformers and PEFT, with every option of its config.json turned on: see make_family_golden.py.
 */

/** Whether a text is computed as the beginning of a longer one is: where positions depend on the length, it may not be. */
function isScaledAlike({ layers }: DecoderConfig, length: number, whole: number): boolean {
  const scaling = layers[0]?.rope?.scaling
  if (scaling?.type === 'dynamic') return whole <= scaling.maxPositions
  if (scaling?.type !== 'longrope') return true
  return length > scaling.originalMaxPositions || whole <= scaling.originalMaxPositions
}

/** The largest differences found, a line at the end: how far from the tolerances they are. */
const largest = new Map<string, number>()
function note(what: string, difference: number): number {
  largest.set(what, Math.max(largest.get(what) ?? 0, difference))
  return difference
}
afterAll(() => {
  const found = [...largest].map(([what, difference]) => `${what} ${difference.toExponential(1)}`)
  console.info(`families, largest differences from PyTorch: ${found.join(', ')}`)
})

test('every family has a case', async () => {
  const types = await Promise.all(cases.map(async (name) => (await readGolden(name)).config.model_type))
  expect(new Set(types)).toEqual(new Set(Object.keys(families)))
})

describe.each(cases)('%s', (name) => {
  let golden: Golden
  let tensors: TensorReader
  let model: string
  let examples: Example[]

  beforeAll(async () => {
    tensors = await openSafetensors(join(folder, `${name}.safetensors`))
    model = await mkdtemp(join(tmpdir(), 'lowrank-family-'))
    ;({ golden, examples } = await writeModel(name, model))
  })
  afterAll(async () => {
    await tensors.close()
    await rm(model, { recursive: true })
  })

  const open = (run: 'base' | 'adapter', activations?: 'keep' | 'recompute'): Promise<OpenDecoder> =>
    openDecoder({
      model,
      adapter: run === 'adapter' ? join(model, 'adapter') : undefined,
      threads: 1,
      ...(activations && {
        training: { lora: undefined, init: 'pretrained', seed: 1 },
        choice: { activations, expandWeights: activations === 'keep' },
      }),
    })
  const read = async (tensor: string): Promise<Float32Array> => new Float32Array((await tensors.read(tensor)).buffer)

  test.each(['base', 'adapter'] as const)('loss within 1e-5: %s, also packed', async (run) => {
    const { pipeline, close } = await open(run)
    const packed: Batch = batchOf([examples, examples.toReversed()], {})
    for (const batch of [makeBatch(examples), packed]) {
      const { loss } = await evaluateBatches({ pipeline, batches: [batch] })
      expect(note('loss', Math.abs(loss - golden.losses[run]))).toBeLessThan(1e-5)
    }
    await close()
  })

  test('logits within 1e-4', async () => {
    const { pipeline, config, close } = await open('base')
    const expected = await read('logits')
    let row = 0
    for (const { ids, labelMask } of examples) {
      for (let t = labelMask.indexOf(1); t < ids.length; t++, row++) {
        const found = await pipeline.nextLogits(ids.slice(0, t))
        if (!isScaledAlike(config, t, ids.length)) continue
        found.forEach((value, i) => {
          const difference = Math.abs(value - (expected[row * config.vocabSize + i] ?? NaN))
          expect(note('logits', difference)).toBeLessThan(1e-4)
        })
      }
    }
    expect(expected).toHaveLength(row * config.vocabSize)
    await close()
  })

  test.each([
    ['base', 'keep'],
    ['base', 'recompute'],
    ['adapter', 'keep'],
    ['adapter', 'recompute'],
  ] as const)('every gradient within 1e-4 of its largest entry: %s, %s', async (run, activations) => {
    const { pipeline, trainables, adaptation, close } = await open(run, activations)
    const batches = [makeBatch(examples)]
    const { labelTokens } = await accumulateGradients({ pipeline, trainables, batches, seed: 1, step: 1 })
    const nameOf = (weight: string): string => `${run}.${run === 'base' ? weight : adaptation.fileName(weight)}`
    const wanted = [...tensors.tensors.keys()].filter((tensor) => tensor.startsWith(`${run}.`))
    expect([...trainables.keys()].map(nameOf).sort()).toEqual(wanted.sort())
    for (const [weight, { gradient }] of trainables) {
      const expected = await read(nameOf(weight))
      const scale = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      const worst = expected.reduce(
        (most, value, i) => Math.max(most, Math.abs(value - (gradient[i] ?? NaN) / labelTokens)),
        0,
      )
      // A bias of keys changes nothing, since it adds the same to all scores of a query: its gradient is rounding.
      if (scale < 1e-6) continue
      expect.soft(note('gradients', worst / scale), weight).toBeLessThan(1e-4)
    }
    await close()
  })

  test('ten losses within 1e-3', async () => {
    const { pipeline, trainables, close } = await open('adapter', 'keep')
    const optimizer = new AdamW(trainables.values(), {
      beta1: 0.9,
      beta2: 0.999,
      epsilon: 1e-8,
      weightDecay: 0,
      decays: () => true,
    })
    const batches = [makeBatch(examples)]
    for (const [step, expected] of golden.curve.entries()) {
      const sums = await accumulateGradients({ pipeline, trainables, batches, seed: 1, step })
      optimizer.step(golden.learningRate, 1 / sums.labelTokens)
      expect(note('ten losses', Math.abs(sums.lossSum / sums.labelTokens - expected))).toBeLessThan(1e-3)
    }
    await close()
  })
})

/** Descriptions in which one option is as if config.json did not have it. */
const without: Readonly<Record<string, (config: DecoderConfig) => Partial<DecoderConfig>>> = {
  window: ({ layers }) => ({ layers: layers.map((kind) => ({ ...kind, window: undefined })) }),
  'rope scaling': ({ layers }) => ({
    layers: layers.map(({ rope, window }) => ({ rope: rope && { ...rope, scaling: { type: 'default' } }, window })),
  }),
  'rope bases': ({ layers }) => ({ layers: layers.map(({ window }) => ({ rope: layers.at(-1)?.rope, window })) }),
  'layers without positions': ({ layers }) => ({
    layers: layers.map(({ rope, window }) => ({ rope: rope ?? layers[0]?.rope, window })),
  }),
  activation: () => ({ activation: 'silu' }),
  'norm offset': () => ({ normOffset: 0 }),
  'score cap': () => ({ scoreCap: undefined }),
  'logit cap': () => ({ logitCap: undefined }),
  'attention scale': ({ headDim }) => ({ attentionScale: 1 / Math.sqrt(headDim) }),
  'embedding scale': () => ({ embeddingScale: 1 }),
  'input multiplier': ({ multipliers }) => ({ multipliers: { ...multipliers, input: 1 } }),
  'residual multiplier': ({ multipliers }) => ({ multipliers: { ...multipliers, residual: 1 } }),
  'logits multiplier': ({ multipliers }) => ({ multipliers: { ...multipliers, logits: 1 } }),
}

describe('each option that a case turns on changes its loss', () => {
  test.each(cases)('%s', async (name) => {
    const model = await mkdtemp(join(tmpdir(), 'lowrank-family-'))
    const { golden, examples } = await writeModel(name, model)
    const family = families[golden.config.model_type as FamilyName]
    const describe = family.describe.bind(family)
    const own = describe(golden.config, (message) => {
      throw new Error(message)
    })
    for (const [option, change] of Object.entries(without)) {
      const changed = { ...own, ...change(own) }
      if (isDeepStrictEqual(changed, own)) continue
      const spy = vi.spyOn(family, 'describe').mockReturnValue(changed)
      const { pipeline, close } = await openDecoder({ model, threads: 1 })
      spy.mockRestore()
      const { loss } = await evaluateBatches({ pipeline, batches: [makeBatch(examples)] })
      expect.soft(Math.abs(loss - golden.losses.base), option).toBeGreaterThan(1e-4)
      await close()
    }
    await rm(model, { recursive: true })
  })
})

const nf4 = { loadIn4bit: true, bnb4bitQuantType: 'nf4', bnb4bitUseDoubleQuant: true } as const
const lora = {
  r: 2,
  loraAlpha: 4,
  loraDropout: 0.1,
  targetModules: 'all-linear',
  bias: 'none',
  useRslora: false,
} as const

describe('what can be done with a Llama can be done with', () => {
  test.each(cases)('%s', async (name) => {
    const root = await mkdtemp(join(tmpdir(), 'lowrank-family-'))
    const { examples } = await writeModel(name, root)
    const batches = [makeBatch(examples)]
    const lossOf = async (options: Pick<DecoderOptions, 'model' | 'quantization'>): Promise<number> => {
      const { pipeline, close } = await openDecoder({ ...options, threads: 1 })
      const { loss } = await evaluateBatches({ pipeline, batches })
      await close()
      return loss
    }
    const plain = await lossOf({ model: root })

    for (const loadIn8bit of [false, true]) {
      const output = join(root, loadIn8bit ? 'int8' : 'nf4')
      const held = { ...nf4, loadIn8bit, loadIn4bit: !loadIn8bit }
      const quantization = quantizationOf(held)
      await resultOf(runQuantize({ model: root, output, maxShardSize: 1e9, ...held }, { cancelled: () => false }))
      const loss = await lossOf({ model: output })
      // Quantized as it is read, or before.
      expect(await lossOf({ model: root, quantization })).toBe(loss)
      expect(Math.abs(loss - plain)).toBeGreaterThan(1e-6)
      expect(Math.abs(loss - plain)).toBeLessThan(1)

      const gradientsOf = async (choice: Partial<MemoryChoice>): Promise<unknown> => {
        const training = { lora, init: 'pretrained', seed: 1 } as const
        const decoder = await openDecoder({ model: output, threads: 1, training, choice })
        await accumulateGradients({ ...decoder, batches, seed: 1, step: 1 })
        await decoder.close()
        return [...decoder.trainables].map(([weight, { gradient }]) => [weight, gradient])
      }
      const resident = await gradientsOf({ activations: 'recompute' })
      expect(await gradientsOf({ activations: 'recompute', streamed: { group: 1 } })).toEqual(resident)
    }

    const random = await openDecoder({
      model: root,
      threads: 1,
      training: { lora: undefined, init: 'random', seed: 1 },
    })
    const { loss } = await evaluateBatches({ pipeline: random.pipeline, batches })
    // Random weights know nothing.
    expect(Math.abs(loss - Math.log(random.config.vocabSize))).toBeLessThan(0.5)
    await random.close()
    await rm(root, { recursive: true })
  })
})
