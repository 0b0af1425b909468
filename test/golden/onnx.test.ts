import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fromBinary } from '@bufbuild/protobuf'
import { afterAll, describe, expect, test } from 'vitest'
import { ModelFile } from '../../src/engine/onnxruntime/model-file.ts'
import { FileRunner } from '../../src/export/onnx/check.ts'
import { type OnnxDtype, onnxForms, writeOnnx } from '../../src/export/onnx/write.ts'
import { type ModelProto, ModelProtoSchema } from '../../src/graph/onnx/onnx_pb.ts'
import { readAdapter } from '../../src/model/peft/adapter.ts'
import { openWeights } from '../../src/model/sources/checkpoint.ts'
import { mergedWeights } from '../../src/model/sources/merged.ts'
import type { WeightSource } from '../../src/model/sources/source.ts'
import { type Generation, openGeneration } from '../../src/session/generation.ts'
import { openSafetensors, writeSafetensors } from '../../src/formats/safetensors.ts'
import { bytesToF32, f32ToBytes } from '../../src/util/dtype.ts'
import { cases, writeModel } from './family-model.ts'

/*
 * The graph that other programs load, of every family, against the decoder that has a cache of its own.
 */

const root = await mkdtemp(join(tmpdir(), 'lowrank-onnx-'))
afterAll(() => rm(root, { recursive: true }))

/** The largest differences found, a line at the end: how far from the tolerance they are. */
const largest = new Map<string, number>()
afterAll(() => {
  const found = [...largest].map(([what, difference]) => `${what} ${difference.toExponential(1)}`)
  console.info(`onnx, largest differences: ${found.join(', ')}`)
})

function compare(what: string, found: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(found.length).toBe(expected.length)
  let worst = 0
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs((found[i] ?? NaN) - (expected[i] ?? NaN))
    if (!(difference <= worst)) worst = difference
  }
  largest.set(what, Math.max(largest.get(what) ?? 0, worst))
  expect(worst, what).toBeLessThan(1e-4)
}

interface Exported {
  readonly folder: string
  readonly file: ModelFile
  readonly source: WeightSource
}

async function exported(
  model: string,
  options: { readonly adapter?: string; readonly dtype?: OnnxDtype; readonly mostDataBytes?: number } = {},
): Promise<Exported> {
  const { adapter, dtype = 'f32' } = options
  const base = await openWeights(model)
  const source =
    adapter === undefined
      ? base
      : await mergedWeights(base, [{ folder: adapter, adapter: await readAdapter(adapter), scale: 1 }])
  const folder = await mkdtemp(join(root, 'export-'))
  await writeOnnx({ source, model, adapter, cancelled: () => false, ...options, dtype }, folder)
  const file = await ModelFile.open(join(folder, 'onnx', onnxForms[dtype].file), { threads: 1 })
  return { folder, file, source }
}

/** Tokens of a text in pieces, as prompts and generated tokens come. */
function pieces(ids: readonly number[]): number[][] {
  const cuts = [0, 3, 4, 5, 8, 9].filter((cut) => cut < ids.length)
  return cuts.map((cut, i) => ids.slice(cut, cuts[i + 1]))
}

/** Logits of all positions, by our decoder. */
async function ownLogits(generation: Generation, ids: readonly number[], folder?: string): Promise<Float32Array[]> {
  const adapter = folder === undefined ? undefined : await generation.adapter(folder)
  const cache = generation.decoder.newCache()
  const logits: Float32Array[] = []
  for (const piece of pieces(ids)) {
    const run = { ids: Int32Array.from(piece), adapters: [adapter], logits: 'all' } as const
    logits.push((await generation.decoder.run(cache, run))!)
  }
  return logits
}

async function fileLogits({ file, source }: Exported, ids: readonly number[]): Promise<Float32Array[]> {
  const runner = new FileRunner(file, source.config)
  const logits: Float32Array[] = []
  for (const piece of pieces(ids)) logits.push(await runner.step([piece]))
  return logits
}

/** Texts of a case, each as long as its positions are known. */
function textsOf(examples: readonly { readonly ids: Int32Array }[], { config }: WeightSource): number[][] {
  return examples.map(({ ids }) => [...ids].slice(0, config.maxPositionEmbeddings))
}

async function graphOf(path: string): Promise<ModelProto> {
  return fromBinary(ModelProtoSchema, await readFile(path))
}

describe.each(cases)('%s', (name) => {
  test('each step as our decoder computes it, model and adapter in one file', async () => {
    const model = await mkdtemp(join(root, 'model-'))
    const { examples } = await writeModel(name, model)
    const adapter = join(model, 'adapter')
    const made = await exported(model, { adapter })
    const generation = await openGeneration({ model, threads: 1 })
    for (const ids of textsOf(examples, made.source)) {
      const expected = await ownLogits(generation, ids, adapter)
      const found = await fileLogits(made, ids)
      found.forEach((logits, i) => compare('steps', logits, expected[i]!))
    }
    await generation.close()

    const texts = textsOf(examples, made.source)
    const longest = Math.max(...texts.map((ids) => ids.length))
    const runner = new FileRunner(made.file, made.source.config)
    const padded = texts.map((ids) => [...Array.from({ length: longest - ids.length }, () => undefined), ...ids])
    // The last three tokens of each come one by one.
    const parts = [longest - 3, longest - 2, longest - 1, longest].map((end, i, ends) =>
      padded.map((row) => row.slice(ends[i - 1] ?? 0, end)),
    )
    const width = made.source.config.vocabSize
    const alone = await Promise.all(
      texts.map(async (ids) => {
        const row = new FileRunner(made.file, made.source.config)
        const found: Float32Array[] = []
        const ends = [ids.length - 3, ids.length - 2, ids.length - 1, ids.length]
        for (const [i, end] of ends.entries()) found.push(await row.step([ids.slice(ends[i - 1] ?? 0, end)]))
        return found.map((logits) => logits.subarray(-width))
      }),
    )
    for (const [i, part] of parts.entries()) {
      const together = await runner.step(part)
      const seq = part[0]!.length
      for (const [row, found] of alone.entries()) {
        compare('left padding', together.subarray(((row + 1) * seq - 1) * width, (row + 1) * seq * width), found[i]!)
      }
    }
    await made.file.close()
    await made.source.close()
  })
})

/** A model whose weights are stored in f16. */
async function halfModel(name: string): Promise<{ readonly model: string; readonly ids: readonly number[][] }> {
  const model = await mkdtemp(join(root, 'model-'))
  const { examples } = await writeModel(name, model)
  const path = join(model, 'model.safetensors')
  const reader = await openSafetensors(path)
  const tensors = await Promise.all(
    [...reader.tensors].map(async ([tensor, { shape }]) => {
      const bytes = f32ToBytes(bytesToF32(await reader.read(tensor), 'F32'), 'F16')
      return { name: tensor, dtype: 'F16', shape, data: async () => bytes } as const
    }),
  )
  await reader.close()
  await writeSafetensors(path, tensors, { format: 'pt' })
  return { model, ids: examples.map(({ ids }) => [...ids]) }
}

describe('weights in fewer bits', () => {
  test.each([
    ['f16', 'exact', 'qwen2'],
    ['f16', 'exact', 'gemma3'],
    ['q8_0', 'fast', 'phi3'],
    ['q8_0', 'fast', 'gemma2'],
    ['q4_0', 'fast-4bit', 'granite'],
  ] as const)('%s as our decoder with precision %s: %s', async (dtype, precision, name) => {
    const { model, ids } = await halfModel(name)
    const made = await exported(model, { dtype })
    const generation = await openGeneration({ model, threads: 1, precision })
    for (const text of ids) {
      const expected = await ownLogits(generation, text)
      const found = await fileLogits(made, text)
      found.forEach((logits, i) => compare(dtype, logits, expected[i]!))
    }
    await generation.close()
    await made.file.close()
    const { graph } = await graphOf(join(made.folder, 'onnx', onnxForms[dtype].file))
    const types = new Set(
      graph!.initializer.filter(({ externalData }) => externalData.length > 0).map((one) => one.dataType),
    )
    expect(types).toContain(dtype === 'f16' ? 10 : 2)
    await made.source.close()
  })
})

test('what every build of the runtime has is all that is used', async () => {
  const found = new Set<string>()
  for (const name of cases) {
    const model = await mkdtemp(join(root, 'model-'))
    await writeModel(name, model)
    const { folder, file, source } = await exported(model)
    const { graph, opsetImport, irVersion } = await graphOf(join(folder, 'onnx', 'model.onnx'))
    for (const { domain, opType } of graph!.node) found.add(domain === '' ? opType : `${domain}.${opType}`)
    expect(opsetImport.map(({ domain, version }) => [domain, version])).toEqual([
      ['', 21n],
      ['com.microsoft', 1n],
    ])
    expect(irVersion).toBe(10n)
    expect(graph!.input.slice(0, 3).map((input) => input.name)).toEqual(['input_ids', 'attention_mask', 'position_ids'])
    await file.close()
    await source.close()
  }
  expect([...found].sort()).toMatchInlineSnapshot(`
    [
      "Add",
      "And",
      "Cast",
      "Concat",
      "Erf",
      "Gather",
      "Gemm",
      "Greater",
      "GreaterOrEqual",
      "Identity",
      "LessOrEqual",
      "MatMul",
      "Mul",
      "Range",
      "ReduceMax",
      "Reshape",
      "Shape",
      "Sigmoid",
      "SimplifiedLayerNormalization",
      "Softmax",
      "Split",
      "Sub",
      "Tanh",
      "Transpose",
      "Unsqueeze",
      "Where",
      "com.microsoft.RotaryEmbedding",
    ]
  `)
})

test('weights in several files', async () => {
  const model = await mkdtemp(join(root, 'model-'))
  const { examples } = await writeModel('qwen3', model)
  const whole = await exported(model)
  const parts = await exported(model, { mostDataBytes: 20_000 })
  const ids = [...examples[0]!.ids]
  expect(await fileLogits(parts, ids)).toEqual(await fileLogits(whole, ids))
  const names = (await readdir(join(parts.folder, 'onnx'))).sort()
  expect(names.length).toBeGreaterThan(3)
  expect(names.slice(0, 3)).toEqual(['model.onnx', 'model.onnx_data', 'model.onnx_data_1'])
  const config = JSON.parse(await readFile(join(parts.folder, 'config.json'), 'utf8')) as Record<string, unknown>
  expect(config['transformers.js_config']).toEqual({
    dtype: 'fp32',
    use_external_data_format: { 'model.onnx': names.length - 1 },
  })
  for (const { file, source } of [whole, parts]) {
    await file.close()
    await source.close()
  }
})

test('a part for texts is described as a model of texts', async () => {
  const model = await mkdtemp(join(root, 'model-'))
  await writeModel('gemma3-images', model)
  const { folder, file, source } = await exported(model)
  const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>
  expect(config).toMatchObject({ model_type: 'gemma3_text', architectures: ['Gemma3ForCausalLM'] })
  expect(config['text_config']).toBeUndefined()
  expect(config['num_hidden_layers']).toBe(source.config.numHiddenLayers)
  await file.close()
  await source.close()
})

describe('what goes wrong leaves nothing that is taken for a model', () => {
  const write = async (model: string, changes: (source: WeightSource) => Partial<WeightSource>, dtype: OnnxDtype) => {
    const base = await openWeights(model)
    const source = { ...base, ...changes(base) }
    const folder = await mkdtemp(join(root, 'export-'))
    const message = await writeOnnx({ source, model, adapter: undefined, dtype, cancelled: () => false }, folder).then(
      () => 'written',
      (error: Error) => error.message,
    )
    await base.close()
    return { message, files: (await readdir(folder, { recursive: true })).filter((one) => one !== 'onnx') }
  }

  test('a weight that cannot be read', async () => {
    const model = await mkdtemp(join(root, 'model-'))
    await writeModel('qwen3', model)
    const broken = (base: WeightSource): Partial<WeightSource> => ({
      load: (name, ...rest) => {
        if (name.includes('layers.1.')) throw new Error(`${name} cannot be read`)
        return base.load(name, ...rest)
      },
    })
    expect(await write(model, broken, 'f32')).toEqual({
      message: expect.stringContaining('cannot be read'),
      files: [],
    })
  })

  test('a number that is too large for f16', async () => {
    const model = await mkdtemp(join(root, 'model-'))
    await writeModel('qwen3', model)
    const large = (base: WeightSource): Partial<WeightSource> => ({
      load: async (name, ...rest) => {
        const weight = await base.load(name, ...rest)
        if (name.endsWith('down_proj.weight') && 'data' in weight) weight.data[5] = 70_000
        return weight
      },
    })
    const { message, files } = await write(model, large, 'f16')
    expect(message).toBe('dtype: 70000 of model.layers.0.mlp.down_proj.weight is too large for f16')
    expect(files).toEqual([])
  })

  test('positions without end', async () => {
    const model = await mkdtemp(join(root, 'model-'))
    await writeModel('qwen3', model)
    const path = join(model, 'config.json')
    const config = JSON.parse(await readFile(path, 'utf8')) as object
    await writeFile(path, JSON.stringify({ ...config, max_position_embeddings: 2 ** 29 }))
    const { message, files } = await write(model, () => ({}), 'f32')
    expect(message).toBe(
      'this qwen3 model has max_position_embeddings 536870912: ONNX holds the angles of all positions',
    )
    expect(files).toEqual([])
  })
})
