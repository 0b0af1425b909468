import { existsSync, mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Quantization } from '../../config/index.ts'
import { type TensorSource, writeSafetensors } from '../../formats/safetensors.ts'
import { storageBytes, storedBytes, widened } from '../../storage/formats.ts'
import { isFloat, type StoredWeight } from '../../storage/stored.ts'
import { f32ToBytes, type FloatDtype } from '../../util/dtype.ts'
import { parseDecoderConfig } from '../config.ts'
import { withQuantizationConfig } from '../bitsandbytes/config.ts'
import { savedTensors } from '../bitsandbytes/save.ts'
import { weightSpecs } from '../weight-specs.ts'
import { openWeights, randomWeights } from './checkpoint.ts'
import { type LlamaJson, writeLlamaGguf } from './gguf.fixture.ts'
import { inFloats, quantizedNames, quantizedWeights } from './quantized.ts'
import { loadWidened, type WeightSource } from './source.ts'

/*
 * What every source of weights promises: the same model through each of them.
 */

const json: LlamaJson & Readonly<Record<string, unknown>> = {
  model_type: 'llama',
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 96,
  rms_norm_eps: 1e-6,
  rope_theta: 10_000,
  max_position_embeddings: 64,
  initializer_range: 0.1,
  tie_word_embeddings: false,
  torch_dtype: 'float32',
}
const config = parseDecoderConfig(json, 'config.json')
const specs = weightSpecs(config)
const nf4: Quantization = { kind: '4bit', quantType: 'nf4', doubleQuant: true, blockSize: 64 }
const int8: Quantization = { kind: '8bit' }
const removed = 'model.layers.1.mlp.up_proj.weight'

const root = mkdtempSync(join(tmpdir(), 'lowrank-sources-'))
afterAll(() => rmSync(root, { recursive: true }))
const model = (): WeightSource => randomWeights(config, 1)

let folders = 0
function writeFolder(text: string): string {
  const folder = join(root, `model-${folders++}`)
  mkdirSync(folder)
  writeFileSync(join(folder, 'config.json'), text)
  return folder
}

async function floatFolder(dtype: FloatDtype, without?: string): Promise<string> {
  const folder = writeFolder(JSON.stringify(json))
  const tensors = specs
    .filter(({ name }) => name !== without)
    .map(({ name, shape }): TensorSource => ({
      name,
      dtype,
      shape,
      data: async () => f32ToBytes(widened(await model().load(name)).data, dtype),
    }))
  await writeSafetensors(join(folder, 'model.safetensors'), tensors)
  return folder
}

/** A folder as transformers and bitsandbytes save it. */
async function quantizedFolder(quantization: Quantization, without?: string): Promise<string> {
  const folder = writeFolder(withQuantizationConfig(JSON.stringify(json), quantization))
  const quantized = quantizedWeights(model(), quantization, () => false)
  const quantizes = quantizedNames(quantized)
  const tensors = specs
    .filter(({ name }) => name !== without)
    .flatMap(({ name, shape }): TensorSource[] => {
      const make = (): Promise<StoredWeight> => quantized.load(name)
      if (quantizes(name)) return savedTensors({ name, shape, quantization, dtype: 'F32', make })
      return [{ name, dtype: 'F32', shape, data: async () => f32ToBytes(widened(await make()).data, 'F32') }]
    })
  await writeSafetensors(join(folder, 'model.safetensors'), tensors)
  return folder
}

async function ggufFile(matrices: FloatDtype | 'Q8_0', without?: string): Promise<string> {
  const file = join(root, `model-${folders++}.gguf`)
  await writeLlamaGguf(file, model(), { config: json, matrices, ...(without !== undefined && { without }) })
  return file
}

interface Case {
  /** Writes the model, but for a weight; undefined: it is in no file. */
  readonly write: ((without?: string) => Promise<string>) | undefined
  readonly open: (path: string) => Promise<WeightSource>
  /** The largest difference of a weight from that of the model, as a share of its largest element. */
  readonly tolerance: number
}

const folder = (dtype: FloatDtype, tolerance: number): Case => ({
  write: (without) => floatFolder(dtype, without),
  open: openWeights,
  tolerance,
})
/** Half a step between the two values of a format that are farthest from each other. */
const [nf4Step, int8Step] = [0.16, 0.005]
const cases: Readonly<Record<string, Case>> = {
  'random weights': { write: undefined, open: async () => model(), tolerance: 0 },
  'a folder in F32': folder('F32', 0),
  'a folder in BF16': folder('BF16', 2 ** -8),
  'a folder in F16': folder('F16', 2 ** -11),
  'a folder in NF4': { write: (without) => quantizedFolder(nf4, without), open: openWeights, tolerance: nf4Step },
  'a folder in LLM.int8': {
    write: (without) => quantizedFolder(int8, without),
    open: openWeights,
    tolerance: int8Step,
  },
  'a folder quantized to NF4 as it is read': {
    ...folder('F32', nf4Step),
    open: async (path) => quantizedWeights(await openWeights(path), nf4, () => false),
  },
  'a folder quantized to LLM.int8 as it is read': {
    ...folder('F32', int8Step),
    open: async (path) => quantizedWeights(await openWeights(path), int8, () => false),
  },
  'a GGUF file in F32': { write: (without) => ggufFile('F32', without), open: openWeights, tolerance: 0 },
  'a GGUF file in BF16': { write: (without) => ggufFile('BF16', without), open: openWeights, tolerance: 2 ** -8 },
  'a GGUF file in F16': { write: (without) => ggufFile('F16', without), open: openWeights, tolerance: 2 ** -11 },
  'a GGUF file in Q8_0': { write: (without) => ggufFile('Q8_0', without), open: openWeights, tolerance: int8Step },
  'a GGUF file, its blocks as floats': {
    write: (without) => ggufFile('Q8_0', without),
    open: async (path) => inFloats(await openWeights(path)),
    tolerance: int8Step,
  },
}

/** How many files under a path this process has open; undefined where the system does not say. */
function openFiles(path: string): number | undefined {
  if (!existsSync('/proc/self/fd')) return undefined
  const target = (name: string): string => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`)
    } catch {
      return ''
    }
  }
  return readdirSync('/proc/self/fd').filter((name) => target(name).startsWith(path)).length
}

describe.each(Object.entries(cases))('%s', (_name, { write, open, tolerance }) => {
  let path: string
  let source: WeightSource
  beforeAll(async () => {
    path = (await write?.()) ?? root
    source = await open(path)
  })
  afterAll(() => source.close())

  test('has the weights of the model, with their shapes', async () => {
    expect(source.specs).toEqual(specs)
    expect(source.config).toMatchObject({ layers: config.layers, vocabSize: 96, tieWordEmbeddings: false })
    for (const { name, shape } of specs) {
      const weight = await source.load(name)
      expect(weight.shape, name).toEqual(shape)
      const [found, expected] = [widened(weight).data, widened(await model().load(name)).data]
      const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      const difference = found.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i]!)), 0)
      expect(difference, name).toBeLessThanOrEqual(tolerance * largest)
      expect(found, name).toHaveLength(expected.length)
    }
  })

  test('gives each in the storage that it declares, which takes the memory that was planned', async () => {
    for (const { name, shape } of specs) {
      const weight = await source.load(name)
      expect(weight.storage, name).toEqual(source.storage(name))
      expect(storedBytes(weight), name).toBe(storageBytes(source.storage(name), shape))
    }
    const quantizes = quantizedNames(source)
    const kinds = specs.map(({ name }) => [quantizes(name), source.storage(name)] as const)
    if (source.quantization === undefined) return
    for (const [quantized, storage] of kinds) expect(typeof storage).toBe(quantized ? 'object' : 'string')
  })

  test('gives the same again, in memory of its own, whatever it may overwrite', async () => {
    const first = await Promise.all(specs.map(({ name }) => source.load(name)))
    const kept = first.map((weight) => structuredClone(weight))
    for (const [i, { name }] of specs.entries()) expect(await source.load(name), name).toEqual(kept[i])
    // Each after the other into the memory of the one before, of its kind or not.
    let reuse: StoredWeight = structuredClone(kept[0]!)
    for (const [i, { name }] of specs.entries()) {
      reuse = await source.load(name, reuse)
      expect(reuse, name).toEqual(kept[i])
    }
    expect(first).toEqual(kept)
  })

  test('gives each in f32, also where that is read and widened in one memory', async () => {
    for (const { name, shape } of specs) {
      const wide = await loadWidened(source, name)
      expect(wide, name).toEqual({ storage: 'F32', shape, data: widened(await source.load(name)).data })
    }
  })

  test('names a weight that it does not have', async () => {
    await expect(source.load('model.layers.7.mlp.up_proj.weight')).rejects.toThrow('model.layers.7.mlp.up_proj.weight')
  })

  test('closes its files, after which it gives no weight of them', async () => {
    const before = openFiles(path)
    const other = await open(path)
    if (write !== undefined && before !== undefined) expect(openFiles(path)).toBeGreaterThan(before)
    await other.close()
    await other.close()
    expect(openFiles(path)).toBe(before)
    if (write !== undefined) await expect(other.load(specs[0]!.name)).rejects.toThrow('closed')
  })

  test.skipIf(write === undefined)('that lacks a weight is refused by its name, with no file left open', async () => {
    const lacking = (await write?.(removed)) ?? ''
    await expect(open(lacking)).rejects.toMatchObject({
      code: 'model',
      message: expect.stringContaining(removed) as string,
    })
    expect(openFiles(lacking) ?? 0).toBe(0)
  })
})

test.each(['BF16', 'F16'] as const)('what is widened of a folder in %s was read into its own memory', async (dtype) => {
  const source = await openWeights(await floatFolder(dtype))
  const read: ArrayBufferLike[] = []
  const watched: WeightSource = {
    ...source,
    load: async (name, reuse) => {
      const weight = await source.load(name, reuse)
      if (isFloat(weight)) read.push(weight.data.buffer)
      return weight
    },
  }
  for (const { name } of specs) expect((await loadWidened(watched, name)).data.buffer, name).toBe(read.at(-1))
  expect(read).toHaveLength(specs.length)
  await source.close()
})

test('weights that are random, of a folder and of a GGUF file are the same bit for bit', async () => {
  const sources = [model(), await openWeights(await floatFolder('F32')), await openWeights(await ggufFile('F32'))]
  for (const { name } of specs) {
    const [first, ...others] = await Promise.all(sources.map((source) => source.load(name)))
    for (const other of others) expect(other, name).toEqual(first)
  }
  await Promise.all(sources.map((source) => source.close()))
})

test.each([nf4, int8])('what is quantized as it is read is what was saved quantized: %o', async (quantization) => {
  const saved = await openWeights(await quantizedFolder(quantization))
  const base = await openWeights(await floatFolder('F32'))
  const read = quantizedWeights(base, quantization, () => false)
  expect(saved.quantization).toEqual(read.quantization)
  for (const { name } of specs) expect(await saved.load(name), name).toEqual(await read.load(name))
  await Promise.all([saved.close(), base.close()])
})
