import { appendFileSync, cpSync, readFileSync, renameSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { readExamples } from '../../src/text/examples.ts'
import { openDecoder, type OpenOptions, PreparedDecoder } from '../../src/session/decoder.ts'
import { storageBytes } from '../../src/storage/formats.ts'
import { makeBatch } from '../../src/text/batches.ts'
import { loadTokenizer } from '../../src/text/tokenizer.ts'
import type { LoraConfig } from '../../src/model/peft/targets.ts'
import { evaluateBatches } from '../../src/train/evaluate.ts'
import { accumulateGradients } from '../../src/train/step.ts'
import { directTasks } from '../tasks.ts'
import { writeAsGguf } from './gguf-model.ts'
import {
  all,
  collect,
  evaluateByCommand,
  figures,
  listFiles,
  makeTinyModel,
  only,
  readJson,
  sha256,
  temporaryFolder,
  tensorHashes,
  writeData,
} from './support.ts'

// A model in one GGUF file is computed as the folder of the same weights is, to the last bit.

const folder = temporaryFolder()
const data = writeData(folder, { train: 12, valid: 8 })
const [file, same] = [join(folder, 'tiny.gguf'), join(folder, 'same')]
const training = {
  ...data,
  maxLength: 64,
  maxSteps: 4,
  learningRate: 2e-2,
  perDeviceTrainBatchSize: 2,
  saveSteps: 2,
  threads: 1,
} as const
const adapterFile = 'adapter_model.safetensors'

beforeAll(async () => writeAsGguf(await makeTinyModel(folder), file, same))

test('evaluated by the command line, and with an adapter', async () => {
  const options = { data: data.valid, maxLength: 64 }
  const found = await evaluateByCommand({ model: file, ...options })
  expect(figures(found)).toEqual(figures(await directTasks.evaluate({ model: same, ...options })))
})

describe('an adapter', () => {
  const outputDir = join(folder, 'adapter')
  beforeAll(async () => {
    await collect({ ...training, model: file, outputDir })
    await collect({ ...training, model: same, outputDir: join(folder, 'of-folder') })
  }, 60_000)

  test('is that of the folder, and says what it belongs to', () => {
    expect(sha256(join(outputDir, adapterFile))).toBe(sha256(join(folder, 'of-folder', adapterFile)))
    expect(readJson(join(outputDir, 'adapter_config.json'))).toMatchObject({ base_model_name_or_path: file })
    expect(listFiles(outputDir)).toEqual(expect.arrayContaining(['tokenizer.json', 'tokenizer_config.json']))
  })

  test('has a tokenizer beside it that makes the same tokens', async () => {
    cpSync(join(same, 'config.json'), join(outputDir, 'config.json'))
    const [made, own] = await Promise.all([outputDir, same].map((path) => loadTokenizer(path)))
    const texts = readFileSync(data.valid, 'utf8').split('\n')
    expect(await made!.encode(texts)).toEqual(await own!.encode(texts))
    expect([made!.eosId, made!.prefix]).toEqual([own!.eosId, own!.prefix])
    made!.close()
    own!.close()
  })

  test('goes on where it was interrupted, on the same file wherever it lies, but on no other', async () => {
    const copy = join(folder, 'moved')
    cpSync(outputDir, copy, { recursive: true })
    const moved = join(folder, 'elsewhere.gguf')
    cpSync(file, moved)
    const resume = { ...training, model: moved, resumeFrom: join(copy, 'checkpoint-2') } as const
    const events = await collect({
      ...resume,
      resumeFrom: join(copy, 'checkpoint-2'),
      outputDir: join(folder, 'resumed'),
    })
    expect(only(events, 'step').map(({ step }) => step)).toEqual([3, 4])
    expect(only(events, 'plan')[0]?.quantization).toBe('in blocks of GGUF (Q8_0)')
    expect(sha256(join(folder, 'resumed', adapterFile))).toBe(sha256(join(outputDir, adapterFile)))
    appendFileSync(moved, 'x')
    await expect(all(directTasks.finetune({ ...resume, outputDir: join(folder, 'other') }))).rejects.toThrow(
      'model, its content',
    )
    renameSync(moved, `${moved}.other`)
  })
})

const lora: LoraConfig = {
  r: 4,
  loraAlpha: 8,
  loraDropout: 0,
  targetModules: 'all-linear',
  bias: 'none',
  useRslora: false,
}

/** Loss of some batches, and the gradients of an adapter. */
async function compute(model: string, choice: OpenOptions['choice']): Promise<Computed> {
  const tokenizer = await loadTokenizer(model)
  const { examples } = await readExamples({
    sources: [{ path: data.train, weight: 1 }],
    tokenizer,
    maxLength: 64,
    vocabSize: 1e9,
  })
  tokenizer.close()
  const decoder = await openDecoder({ model, threads: 1, training: { lora, init: 'pretrained', seed: 1 }, choice })
  const { pipeline, trainables } = decoder
  const batches = [makeBatch(examples.slice(0, 3)), makeBatch(examples.slice(3, 5))]
  const { loss } = await evaluateBatches({ pipeline, batches })
  await accumulateGradients({ pipeline, trainables, batches, seed: 1, step: 1 })
  const gradients = [...trainables].map(([name, { gradient }]) => [name, gradient.slice()] as const)
  await decoder.close()
  // Numbers that are none would be equal to each other. B is zero at first, and with it the gradient of A.
  for (const [name, gradient] of gradients) {
    expect([name, gradient.every(Number.isFinite)]).toEqual([name, true])
    expect([name, gradient.some((value) => value !== 0)]).toEqual([name, name.includes('lora_B')])
  }
  return { loss, gradients }
}

interface Computed {
  readonly loss: number
  readonly gradients: readonly (readonly [name: string, gradient: Float32Array])[]
}

test.each<[string, OpenOptions['choice']]>([
  ['in memory', { activations: 'keep', expandWeights: true }],
  ['on disk', { activations: 'recompute', streamed: { group: 2 } }],
])('blocks %s: losses and gradients are those of the folder', async (_, choice) => {
  expect(await compute(file, choice)).toEqual(await compute(same, choice))
})

test.each([undefined, 'Q6_K'] as const)('a head that is fed in slices, %s', async (head) => {
  // More elements than a slice has.
  const shape = { hidden_size: 2048, num_hidden_layers: 1, head_dim: 16, tie_word_embeddings: head === undefined }
  const model = await makeTinyModel(join(folder, `wide-${head}`), shape)
  const [wide, asFolder] = [join(folder, `wide-${head}.gguf`), join(folder, `wide-${head}-f32`)]
  await writeAsGguf(model, wide, asFolder, { head })
  const prepared = await PreparedDecoder.open({ model: wide })
  const stages = prepared.stages({ activations: 'recompute', expandWeights: false })
  const held = prepared.wanted(stages).reduce((total, { storage, shape: of }) => total + storageBytes(storage, of), 0)
  await prepared.close()
  expect(Math.max(...stages.head.parameters.map(({ slices }) => slices.length))).toBeGreaterThan(1)
  // The file has a tokenizer too.
  expect(held).toBeLessThan(statSync(wide).size)

  const [found, wanted] = [
    await compute(wide, { activations: 'keep' }),
    await compute(asFolder, { activations: 'keep' }),
  ]
  expect(Math.abs(found.loss - wanted.loss)).toBeLessThan(1e-6 * wanted.loss)
  wanted.gradients.forEach(([name, gradient], i) => {
    const largest = gradient.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    // The products of slices are summed in another order.
    const far = gradient.findIndex(
      (value, at) => !(Math.abs(value - (found.gradients[i]?.[1][at] ?? NaN)) <= 1e-5 * largest),
    )
    expect([name, far]).toEqual([name, -1])
  })
})

test('every weight trained: a folder of the hub, in f32', async () => {
  const run = { ...training, method: 'full', saveStrategy: 'no', maxSteps: 2 } as const
  const [ofFile, ofFolder] = [join(folder, 'full'), join(folder, 'full-folder')]
  await collect({ ...run, model: file, outputDir: ofFile })
  await collect({ ...run, model: same, outputDir: ofFolder })
  const path = (output: string): string => join(output, 'model.safetensors')
  expect(tensorHashes(path(ofFile))).toEqual(tensorHashes(path(ofFolder)))
  const options = { data: data.valid, maxLength: 64 }
  const [found, expected] = await Promise.all(
    [ofFile, ofFolder].map((model) => directTasks.evaluate({ model, ...options })),
  )
  expect(figures(found!)).toEqual(figures(expected!))
})

test('quantized: as it is read, and into a folder', async () => {
  const nf4 = { loadIn4bit: true, bnb4bitQuantType: 'nf4', bnb4bitUseDoubleQuant: true } as const
  const plain = { data: data.valid, maxLength: 64 }
  const options = { ...plain, ...nf4 }
  const wanted = figures(await directTasks.evaluate({ model: same, ...options }))
  expect(figures(await directTasks.evaluate({ model: file, ...options }))).toEqual(wanted)
  const output = join(folder, 'nf4')
  await directTasks.quantize({ model: file, output, ...nf4 })
  expect(figures(await directTasks.evaluate({ model: output, ...plain }))).toEqual(wanted)
})
