import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { trainOptions, type TrainConfig } from '../../src/config/index.ts'
import type { GradientSink } from '../../src/engine/pipeline.ts'
import { openSafetensors } from '../../src/formats/safetensors.ts'
import { openDecoder, type OpenDecoder } from '../../src/session/decoder.ts'
import { makeBatch, type Batch } from '../../src/text/batches.ts'
import { evaluateBatches } from '../../src/train/evaluate.ts'
import type { Trainable } from '../../src/engine/trainable.ts'
import { clipFactor, gradientNorm, makeOptimizer } from '../../src/train/optimizer.ts'
import { learningRates } from '../../src/train/schedule.ts'
import { accumulateGradients } from '../../src/train/step.ts'
import { bytesToF32 } from '../../src/util/dtype.ts'
import { uniform } from './uniform.ts'

/** Made by `make_training_curves.py` with PyTorch, transformers and PEFT. */
const folder = fileURLToPath(new URL('.', import.meta.url))

interface Run {
  readonly model: string
  readonly adapter: string
  readonly options: Readonly<Record<string, unknown>>
  readonly loss: readonly number[]
  readonly gradNorm: readonly number[]
  readonly learningRate: readonly number[]
}
interface Case {
  readonly name: string
  readonly model: string
  readonly adapter: string
  readonly smoothing?: number
  readonly noisy?: boolean
  readonly loss: number
}
interface Golden {
  readonly steps: number
  readonly stride: number
  readonly alpha: number
  readonly runs: readonly Run[]
  readonly gradients: readonly Case[]
}
interface Inputs {
  readonly batches: readonly (readonly { readonly ids: readonly number[]; readonly labelMask: readonly number[] }[])[]
}

const readJson = async <T>(...path: string[]): Promise<T> =>
  JSON.parse(await readFile(join(folder, ...path), 'utf8')) as T
const golden = await readJson<Golden>('training-curves', 'golden.json')
const tensors = await openSafetensors(join(folder, 'training-curves', 'golden.safetensors'))
const readFloats = async (name: string): Promise<Float32Array> => bytesToF32(await tensors.read(name), 'F32')

/** The largest differences found, a line at the end: how far from the tolerances they are. */
const largest = new Map<string, number>()
const note = (what: string, difference: number): void => {
  largest.set(what, Math.max(largest.get(what) ?? 0, difference))
}
afterAll(async () => {
  await tensors.close()
  const found = [...largest].map(([what, difference]) => `${what} ${difference.toExponential(1)}`)
  console.info(`largest differences from PyTorch: ${found.join(', ')}`)
})

async function batchesOf(model: string): Promise<Batch[]> {
  const { batches } = await readJson<Inputs>(model, 'inputs.json')
  return batches.map((examples) =>
    makeBatch(
      examples.map(({ ids, labelMask }, i) => ({
        ids: Int32Array.from(ids),
        labelMask: Uint8Array.from(labelMask),
        line: i + 1,
      })),
    ),
  )
}

function open({ model, adapter }: Pick<Run, 'model' | 'adapter'>, labelSmoothing: number): Promise<OpenDecoder> {
  return openDecoder({
    model: join(folder, model),
    adapter: adapter === 'base' ? undefined : join(folder, model, adapter),
    threads: 2,
    training: { lora: undefined, init: 'pretrained', seed: 1, labelSmoothing },
    choice: { activations: 'keep', expandWeights: true },
  })
}

/** The options of a run as a configuration file would have them. */
function configOf({ adapter, options }: Run): TrainConfig {
  const given = { model: 'm', train: 't', output_dir: 'o', method: adapter === 'base' ? 'full' : 'lora', ...options }
  const entries = Object.entries(given).map(([name, value]) => ({ name, value, where: name }))
  return trainOptions.read([{ entries, spelling: 'key', text: true }])
}

const worstOf = (found: readonly number[], expected: readonly number[]): number => {
  expect(found).toHaveLength(expected.length)
  return found.reduce((most, value, i) => Math.max(most, Math.abs(value - (expected[i] ?? NaN))), 0)
}

test('every kind of run is among the curves', () => {
  const has = (key: string): number => golden.runs.filter(({ options }) => key in options).length
  expect(golden.runs).toHaveLength(11)
  expect([has('optim_args'), has('loraplus_lr_ratio'), has('label_smoothing_factor')]).toEqual([5, 3, 2])
  expect(golden.gradients).toHaveLength(8)
})

const named = golden.runs.map((run) => {
  const { optim, lr_scheduler_type, loraplus_lr_ratio, label_smoothing_factor } = run.options
  const words = [run.model, run.adapter, optim, lr_scheduler_type]
  if (loraplus_lr_ratio !== undefined) words.push('LoRA+')
  if (label_smoothing_factor !== undefined) words.push('label smoothing')
  return [words.join(', '), run] as const
})

test.each(named)('20 losses of %s', async (_, run) => {
  const config = configOf(run)
  const { pipeline, trainables, close } = await open(run, config.labelSmoothingFactor)
  const batches = await batchesOf(run.model)
  const optimizer = makeOptimizer(trainables.values(), config)
  const rateOf = learningRates(config, golden.steps)
  const found: Record<'loss' | 'gradNorm' | 'learningRate', number[]> = { loss: [], gradNorm: [], learningRate: [] }
  for (let step = 0; step < golden.steps; step++) {
    const batch = batches[step % batches.length] as Batch
    const sums = await accumulateGradients({ pipeline, trainables, batches: [batch], seed: 1, step })
    const norm = gradientNorm(trainables.values()) / sums.labelTokens
    found.loss.push(sums.lossSum / sums.labelTokens)
    found.gradNorm.push(norm)
    found.learningRate.push(rateOf(step))
    optimizer.step(rateOf(step), clipFactor(norm, config.maxGradNorm) / sums.labelTokens)
  }
  await close()
  const losses = worstOf(found.loss, run.loss)
  const norms = worstOf(
    found.gradNorm.map((norm, i) => norm / (run.gradNorm[i] ?? NaN)),
    run.gradNorm.map(() => 1),
  )
  note('20 losses', losses)
  note('gradient norms', norms)
  expect.soft(losses).toBeLessThan(1e-5)
  expect.soft(norms).toBeLessThan(1e-4)
  expect(worstOf(found.learningRate, run.learningRate)).toBeLessThan(1e-12)
})

/** Adds to the gradients of trainables. */
function sinkOf(trainables: ReadonlyMap<string, Trainable>): GradientSink {
  const gradientOf = (name: string): Float32Array => trainables.get(name)?.gradient ?? new Float32Array()
  const addAt = (name: string, start: number, values: Float32Array): void => {
    const sum = gradientOf(name)
    values.forEach((value, i) => (sum[start + i] = sum[start + i]! + value))
  }
  return {
    add: (name, gradient) => addAt(name, 0, gradient),
    addRows: (name, indices, rows) => {
      const width = rows.length / indices.length
      indices.forEach((index, row) => addAt(name, index * width, rows.subarray(row * width, (row + 1) * width)))
    },
  }
}

describe.each(golden.gradients.map((one) => [one.name, one] as const))('%s', (name, expected) => {
  test('loss and every gradient', async () => {
    const decoder = await open(expected, expected.smoothing ?? 0)
    const { pipeline, trainables, adaptation, close } = decoder
    const [batch] = (await batchesOf(expected.model)) as [Batch]
    const addNoise = (x: Float32Array): void => {
      const width = x.length / (batch.batch * batch.seq)
      batch.examples.forEach(({ ids }, i) => {
        const scale = (2 * golden.alpha) / Math.sqrt(ids.length * width)
        const start = (batch.starts[i] ?? NaN) * width
        for (let j = 0; j < ids.length * width; j++) x[start + j] = x[start + j]! + scale * uniform(j, i)
      })
    }
    const noise = expected.noisy === true ? { addNoise } : {}
    const losses = await pipeline.train([batch], { fillMask: () => {}, ...noise }, sinkOf(trainables))
    const labels = batch.targets.length
    const loss = losses.flatMap((some) => [...some]).reduce((total, one) => total + one, 0) / labels
    note('loss', Math.abs(loss - expected.loss))
    expect(Math.abs(loss - expected.loss)).toBeLessThan(1e-5)

    const [sampled, scales] = [await readFloats(`${name}.gradients`), await readFloats(`${name}.scales`)]
    const sorted = [...trainables.values()].sort((x, y) =>
      adaptation.fileName(x.name) < adaptation.fileName(y.name) ? -1 : 1,
    )
    expect(scales).toHaveLength(sorted.length)
    let [at, seen] = [0, 0]
    sorted.forEach(({ name: parameter, gradient }, index) => {
      let [worst, most] = [0, 0]
      const scale = scales[index] ?? NaN
      for (const sum of gradient) {
        most = Math.max(most, Math.abs(sum / labels))
        if (at++ % golden.stride !== 0) continue
        worst = Math.max(worst, Math.abs(sum / labels - (sampled[seen++] ?? NaN)) / scale)
      }
      note('gradients', worst)
      expect.soft(worst, parameter).toBeLessThan(1e-4)
      expect.soft(Math.abs(most / scale - 1), parameter).toBeLessThan(1e-4)
    })
    expect(seen).toBe(sampled.length)

    // Neither counts in an evaluation.
    const plain = await open(expected, 0)
    const evaluated = await evaluateBatches({ pipeline, batches: [batch] })
    expect(evaluated).toEqual(await evaluateBatches({ pipeline: plain.pipeline, batches: [batch] }))
    expect(Math.abs(evaluated.loss - loss)).toBeGreaterThan(1e-3)
    await plain.close()
    await close()
  })
})
