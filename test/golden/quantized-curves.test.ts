import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import type { Quantization } from '../../src/config/index.ts'
import { openSafetensors } from '../../src/formats/safetensors.ts'
import { openDecoder, type OpenOptions } from '../../src/session/decoder.ts'
import { makeBatch, type Batch } from '../../src/text/batches.ts'
import type { Trainable } from '../../src/engine/trainable.ts'
import { clipFactor, gradientNorm, makeOptimizer } from '../../src/train/optimizer.ts'
import { learningRates } from '../../src/train/schedule.ts'
import { accumulateGradients } from '../../src/train/step.ts'
import { bytesToF32 } from '../../src/util/dtype.ts'
import { uniform } from './uniform.ts'

/** Made by `make_quantized_curves.py`: PyTorch with the weights that bitsandbytes dequantizes. */
const folder = fileURLToPath(new URL('.', import.meta.url))

interface Golden {
  readonly optimizer: {
    readonly learningRate: number
    readonly steps: number
    readonly warmupSteps: number
    readonly maxGradNorm: number
    readonly betas: readonly [number, number]
    readonly eps: number
    readonly weight_decay: number
  }
  readonly sampled: { readonly rows: number; readonly columns: number; readonly stride: number }
  readonly quantizations: Readonly<Record<string, Quantization>>
  readonly adapters: Readonly<
    Record<
      string,
      { readonly r: number; readonly lora_alpha: number; readonly target_modules: readonly string[] | string }
    >
  >
  readonly runs: Readonly<
    Record<string, { readonly loss: number; readonly labelTokens: number; readonly curve: readonly number[] }>
  >
}
interface Inputs {
  readonly batches: readonly (readonly { readonly ids: readonly number[]; readonly labelMask: readonly number[] }[])[]
}

const readJson = async <T>(...path: string[]): Promise<T> =>
  JSON.parse(await readFile(join(folder, ...path), 'utf8')) as T
const golden = await readJson<Golden>('quantized-curves', 'golden.json')
const tensors = await openSafetensors(join(folder, 'quantized-curves', 'golden.safetensors'))
const readFloats = async (name: string): Promise<Float32Array> => bytesToF32(await tensors.read(name), 'F32')

/** The largest difference of each kind and quantization, a line at the end: how far from the tolerances they are. */
const largest = new Map<string, number>()
const note = (what: string, difference: number): void => {
  largest.set(what, Math.max(largest.get(what) ?? 0, difference))
}
afterAll(async () => {
  await tensors.close()
  const found = [...largest].map(([what, difference]) => `${what} ${difference.toExponential(1)}`)
  console.info(`largest differences from PyTorch: ${found.join(', ')}`)
})

function largestDifference(found: readonly number[], expected: ArrayLike<number>): number {
  expect(found).toHaveLength(expected.length)
  return found.reduce((most, value, i) => Math.max(most, Math.abs(value - (expected[i] ?? NaN))), 0)
}

async function batchesOf(model: string): Promise<Batch[]> {
  const { batches } = await readJson<Inputs>(model, 'inputs.json')
  return batches.map((examples) =>
    makeBatch(
      examples.map(({ ids, labelMask }) => ({
        ids: Int32Array.from(ids),
        labelMask: Uint8Array.from(labelMask),
        line: 1,
      })),
    ),
  )
}

function optionsOf(model: string, quantization: string, adapter: string, choice: OpenOptions['choice']): OpenOptions {
  const lora = golden.adapters[adapter]
  if (lora === undefined) throw new Error(`no adapter ${adapter}`)
  const { r, lora_alpha: loraAlpha, target_modules: targetModules } = lora
  return {
    model: join(folder, model),
    threads: 1,
    quantization: golden.quantizations[quantization],
    training: {
      lora: { r, loraAlpha, targetModules, loraDropout: 0, bias: 'none', useRslora: false },
      init: 'pretrained',
      seed: 1,
    },
    choice,
  }
}

/** The largest difference of a gradient relative to its own largest entry. */
async function gradientDifference(run: string, sorted: readonly Trainable[], labels: number): Promise<number> {
  const [expected, scales] = [await readFloats(`${run}.gradients`), await readFloats(`${run}.scales`)]
  expect(scales).toHaveLength(sorted.length)
  let [worst, at, seen] = [0, 0, 0]
  sorted.forEach(({ gradient }, index) => {
    const scale = scales[index] ?? NaN
    let largestEntry = 0
    for (const sum of gradient) {
      largestEntry = Math.max(largestEntry, Math.abs(sum / labels))
      if (at++ % golden.sampled.stride !== 0) continue
      worst = Math.max(worst, Math.abs(sum / labels - (expected[seen++] ?? NaN)) / scale)
    }
    worst = Math.max(worst, Math.abs(largestEntry - scale) / scale)
  })
  expect(seen).toBe(expected.length)
  return worst
}

const runs = Object.keys(golden.runs).map((run) => run.split('.') as [string, string, string])

test('every quantization with every adapter on both models', () => expect(runs).toHaveLength(16))

describe.each(runs)('%s, %s, %s', (model, quantization, adapter) => {
  test.each(['keep', 'recompute'] as const)('logits, gradients and 20 losses, activations %s', async (activations) => {
    const run = `${model}.${quantization}.${adapter}`
    const expected = golden.runs[run]
    if (expected === undefined) throw new Error(`no run ${run}`)
    const choice = { activations, expandWeights: activations === 'keep' }
    const decoder = await openDecoder(optionsOf(model, quantization, adapter, choice))
    const { pipeline, trainables, adaptation, config } = decoder
    const batches = await batchesOf(model)
    const sorted = [...trainables.values()].sort((x, y) =>
      adaptation.fileName(x.name) < adaptation.fileName(y.name) ? -1 : 1,
    )
    sorted.forEach(({ data }, salt) => data.forEach((_, i) => (data[i] = 0.5 * uniform(i, salt))))

    const { rows: everyRow, columns: everyColumn } = golden.sampled
    const { rows, ids, seq } = batches[0] as Batch
    const logits: number[] = []
    for (const row of rows.filter((_, i) => i % everyRow === 0)) {
      const found = await pipeline.nextLogits(ids.slice(row - (row % seq), row + 1))
      expect(found).toHaveLength(config.vocabSize)
      logits.push(...found.filter((_, i) => i % everyColumn === 0))
    }
    const ofLogits = largestDifference(logits, await readFloats(`${run}.logits`))
    note(`logits ${quantization}`, ofLogits)
    expect.soft(ofLogits).toBeLessThan(1e-4)

    const { learningRate, steps, warmupSteps, maxGradNorm, betas, eps, weight_decay: weightDecay } = golden.optimizer
    const optimizer = makeOptimizer(trainables.values(), {
      optim: 'adamw',
      adamBeta1: betas[0],
      adamBeta2: betas[1],
      adamEpsilon: eps,
      weightDecay,
    })
    const rateOf = learningRates({ learningRate, lrSchedulerType: 'linear', warmupSteps, warmupRatio: 0 }, steps)
    const losses: number[] = []
    for (let step = 0; step < steps; step++) {
      const batch = batches[step % batches.length] as Batch
      const { lossSum, labelTokens } = await accumulateGradients({
        pipeline,
        trainables,
        batches: [batch],
        seed: 1,
        step,
      })
      if (step === 0) {
        expect(labelTokens).toBe(expected.labelTokens)
        expect.soft(Math.abs(lossSum / labelTokens - expected.loss)).toBeLessThan(1e-5)
        const ofGradients = await gradientDifference(run, sorted, labelTokens)
        note(`gradients ${quantization}`, ofGradients)
        expect.soft(ofGradients).toBeLessThan(1e-4)
      }
      const norm = gradientNorm(trainables.values()) / labelTokens
      optimizer.step(rateOf(step), clipFactor(norm, maxGradNorm) / labelTokens)
      losses.push(lossSum / labelTokens)
    }
    const ofLosses = largestDifference(losses, expected.curve)
    note(`20 losses ${quantization}`, ofLosses)
    expect(losses).toHaveLength(20)
    expect(ofLosses).toBeLessThan(1e-3)
    await decoder.close()
  })
})
