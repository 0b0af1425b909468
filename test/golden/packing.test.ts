import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { openDecoder, type OpenDecoder, type OpenOptions } from '../../src/session/decoder.ts'
import { batchOf, exampleLosses, makeBatch, type Batch } from '../../src/text/batches.ts'
import type { Example } from '../../src/text/example.ts'
import { evaluateBatches } from '../../src/train/evaluate.ts'
import { accumulateGradients } from '../../src/train/step.ts'
import { fillNormal, stream } from '../../src/util/random.ts'

// Packed rows against rows of one example each, on the models whose unpacked losses and gradients are PyTorch's (golden.test.ts).

const golden = fileURLToPath(new URL('.', import.meta.url))
const quickstart = join(golden, '../../examples/quickstart/model')

const largest = new Map<string, number>()
const note = (what: string, difference: number): void => {
  largest.set(what, Math.max(largest.get(what) ?? 0, difference))
}
afterAll(() => {
  const found = [...largest].map(([what, difference]) => `${what} ${difference.toExponential(1)}`)
  console.info(`largest differences of packed from unpacked: ${found.join(', ')}`)
})

interface Inputs {
  readonly batches: readonly (readonly { readonly ids: readonly number[]; readonly labelMask: readonly number[] }[])[]
}

/** The eight examples of a golden model, of 3 to 140 tokens. */
async function examplesOf(folder: string): Promise<Example[]> {
  const { batches } = JSON.parse(await readFile(join(golden, folder, 'inputs.json'), 'utf8')) as Inputs
  return batches.flat().map(({ ids, labelMask }, i) => ({
    ids: Int32Array.from(ids),
    labelMask: Uint8Array.from(labelMask),
    line: i + 1,
  }))
}

/** Examples of the quickstart's vocabulary. */
const quickstartExamples: Example[] = [40, 7, 23, 4, 61, 12, 30, 18].map((length, i) => ({
  ids: Int32Array.from({ length }, (_, t) => 10 + ((31 * i + 7 * t) % 2400)),
  labelMask: new Uint8Array(length).fill(1, Math.floor(length / 3)),
  line: i + 1,
}))

const rowsOf = (examples: readonly Example[], rows: readonly (readonly number[])[]): Example[][] =>
  rows.map((row) => row.map((i) => examples[i]!))
/** All eight in three rows, one of them a single example; then two rows and the rest unpacked in a micro-batch of its own. */
const layouts = {
  'three rows': (examples: readonly Example[]): Batch[] => [
    batchOf(rowsOf(examples, [[0, 1, 2], [4], [5, 3, 6, 7]]), {}),
  ],
  'two micro-batches, padded to 16': (examples: readonly Example[]): Batch[] => [
    batchOf(
      rowsOf(examples, [
        [4, 1],
        [0, 3, 7],
      ]),
      { padToMultipleOf: 16 },
    ),
    batchOf(rowsOf(examples, [[2], [5], [6]]), {}),
  ],
}

const seeded = { init: 'pretrained', seed: 1 } as const
const loraOf = (targetModules: string[] | string) =>
  ({ r: 4, loraAlpha: 8, targetModules, loraDropout: 0, bias: 'none', useRslora: false }) as const
const full = { ...seeded, lora: undefined }
const gqa = join(golden, 'gqa-tied')
const nf4 = { kind: '4bit', quantType: 'nf4', doubleQuant: true, blockSize: 64 } as const
const models: Readonly<Record<string, { readonly open: OpenOptions; readonly folder: string | undefined }>> = {
  'full, grouped query heads': { open: { model: gqa, training: full }, folder: 'gqa-tied' },
  'adapter, head saved': {
    open: { model: gqa, adapter: join(gqa, 'adapter-saved-head'), training: full },
    folder: 'gqa-tied',
  },
  'adapter, biases': {
    open: { model: join(golden, 'bias-untied'), adapter: join(golden, 'bias-untied/adapter'), training: full },
    folder: 'bias-untied',
  },
  'qlora nf4': {
    open: { model: gqa, quantization: nf4, training: { ...seeded, lora: loraOf('all-linear') } },
    folder: 'gqa-tied',
  },
  'quickstart, lora': {
    open: { model: quickstart, training: { ...seeded, lora: loraOf(['q_proj', 'v_proj']) } },
    folder: undefined,
  },
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

async function open(name: keyof typeof models, activations: 'keep' | 'recompute'): Promise<[OpenDecoder, Example[]]> {
  const { open: options, folder } = models[name]!
  const decoder = await openDecoder({ ...options, threads: 2, choice: { activations, expandWeights: false } })
  // Not zero, as LoRA's B is at the start: every gradient shall count.
  for (const [key, { data }] of decoder.trainables) {
    if (key.includes('lora_B')) fillNormal(data, 0, 0.05, stream(1, key))
  }
  return [decoder, folder === undefined ? quickstartExamples : await examplesOf(folder)]
}

describe.each(Object.keys(models))('%s', (name) => {
  test.each(['keep', 'recompute'] as const)('packed equals unpacked to 1e-5, activations %s', async (activations) => {
    const [decoder, examples] = await open(name, activations)
    const expected = await step(decoder, [makeBatch(examples)])
    expect(expected.losses.size).toBe(8)
    for (const layout of Object.values(layouts)) {
      const found = await step(decoder, layout(examples))
      expect(found.losses.size).toBe(8)
      for (const [example, loss] of expected.losses) {
        // Of a sum over the labels of the example.
        const difference = Math.abs((found.losses.get(example) ?? NaN) - loss) / Math.max(1, loss)
        note('loss of an example', difference)
        expect.soft(difference, `line ${example.line}`).toBeLessThan(1e-5)
      }
      for (const [key, reference] of expected.gradients) {
        const gradient = found.gradients.get(key) ?? new Float32Array()
        const scale = reference.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
        expect(scale).toBeGreaterThan(0)
        const worst = reference.reduce((most, value, i) => Math.max(most, Math.abs(value - (gradient[i] ?? NaN))), 0)
        note('gradients', worst / scale)
        expect.soft(worst / scale, key).toBeLessThan(1e-5)
      }
    }
    await decoder.close()
  })

  test('evaluations too', async () => {
    const [{ pipeline, close }, examples] = await open(name, 'recompute')
    const expected = await evaluateBatches({ pipeline, batches: [makeBatch(examples)] })
    const found = await evaluateBatches({ pipeline, batches: layouts['three rows'](examples) })
    expect(Math.abs(found.loss - expected.loss)).toBeLessThan(1e-5)
    expect(found).toMatchObject({ tokenAccuracy: expected.tokenAccuracy, examples: 8 })
    await close()
  })

  test('no example sees another in its row: other tokens change no bit of its losses', async () => {
    const [decoder, examples] = await open(name, 'keep')
    const { pipeline, trainables } = decoder
    const lossesOf = async (some: readonly Example[]): Promise<number[][]> => {
      const [batch] = layouts['three rows'](some) as [Batch]
      const all: number[][] = []
      const onLosses = (losses: Float32Array): void => {
        batch.examples.forEach((_, i) => {
          const end = batch.starts[i + 1] ?? Infinity
          all.push(
            Array.from(losses.filter((_, row) => batch.rows[row]! >= batch.starts[i]! && batch.rows[row]! < end)),
          )
        })
      }
      await accumulateGradients({ pipeline, trainables, batches: [batch], seed: 1, step: 1, onLosses })
      return all
    }
    const before = await lossesOf(examples)
    expect(before.flat().length).toBe(examples.reduce((total, { labelMask }) => total + sum(labelMask), 0))
    // The first of a row, one between two others, and the last.
    for (const changed of [0, 1, 7]) {
      const others = examples.map((example, i) =>
        i === changed ? { ...example, ids: example.ids.map((id) => (id === 3 ? 4 : 3)) } : example,
      )
      const after = await lossesOf(others)
      const place = layouts['three rows'](examples)[0]!.examples.indexOf(examples[changed]!)
      before.forEach((losses, i) => {
        if (i === place) expect(after[i]).not.toEqual(losses)
        else expect(after[i], `example ${i} after a change of ${place}`).toEqual(losses)
      })
    }
    await decoder.close()
  })
})

/** Labels of an example: the first token is never one. */
const sum = (labelMask: Uint8Array): number => labelMask.subarray(1).reduce((total, value) => total + value, 0)
