import type { Quantization } from '../../config/index.ts'
import { isGgufFile } from '../../formats/model-files.ts'
import { openCheckpoint, type TensorReader } from '../../formats/safetensors.ts'
import { isFloat, type FloatWeight, type StoredWeight } from '../../storage/stored.ts'
import { bytesOf, float8Bits, type FloatDtype, isFloat8 } from '../../util/dtype.ts'
import { internalError, LowrankError } from '../../util/errors.ts'
import { fillNormal, stream } from '../../util/random.ts'
import type { DecoderConfig } from '../decoder.ts'
import { readDecoderConfig } from '../config.ts'
import { openQuantized, type QuantizedEntry } from '../bitsandbytes/checkpoint.ts'
import { openFp8, scalesOf } from '../fp8.ts'
import { headName } from '../names.ts'
import { isNorm, linearPaths, weightSpecs, type WeightSpec } from '../weight-specs.ts'
import { checkAllUsed, decoderTensors, hasOwnHead } from './names.ts'
import { openGguf } from './gguf.ts'
import { checkFinite, type Rows, type WeightSource } from './source.ts'
import { widened } from '../../storage/formats.ts'
import { elements } from '../../util/shape.ts'

/**
 * Opens the weights of a model: a folder, or a GGUF file (see `openGguf`). Of a folder, every tensor is checked to be there with the shape that config.json promises, and to be asked for. Linear layers
 * may be quantized, as transformers and bitsandbytes save them. `load` makes all its calls to the system before it returns.
 */
export async function openWeights(model: string): Promise<WeightSource> {
  return (await isGgufFile(model)) ? openGguf(model) : openFolder(model)
}

async function openFolder(folder: string): Promise<WeightSource> {
  return openTensors(folder, await openCheckpoint(folder), { headersOnly: false })
}

/**
 * The same of a folder whose tensors are elsewhere. `headersOnly`: that they are too far away to be read. Then a head that is stored beside
 * a tied embedding is taken to equal it, as it nearly always does.
 */
export async function openTensors(
  folder: string,
  checkpoint: TensorReader,
  { headersOnly }: { readonly headersOnly: boolean },
): Promise<WeightSource> {
  const described = await readDecoderConfig(folder)
  const { reader, storedName, beside } = decoderTensors(checkpoint, described)
  try {
    const ownHead = !headersOnly && (await hasOwnHead(reader, described))
    const config = ownHead ? { ...described, tieWordEmbeddings: false } : described
    const specs = weightSpecs(config)
    const quantized = await openLinears(folder, reader, config, specs)
    const packed = quantized?.quantization && quantized.entries
    for (const spec of specs) if (!packed?.has(spec.name)) checkTensor(folder, reader, spec)
    checkAllUsed(folder, reader, new Set([...specs.map(({ name }) => name), ...(quantized?.scales ?? [])]))
    const checked = new Set<string>()
    return {
      config,
      specs,
      quantization: quantized?.quantization,
      storedName,
      beside,
      storage: (name) => quantized?.entries.get(name)?.storage ?? floatDtype(reader, name),
      load: async (name, reuse, rows) => {
        const entry = quantized?.entries.get(name)
        if (entry !== undefined) return entry.load(reuse)
        const weight = await loadFloats(reader, name, reuse, rows)
        // Weights on disk are read again and again.
        if (!checked.has(name)) {
          const { file = folder, shape = [] } = reader.tensors.get(name) ?? {}
          checkFinite(weight, { name, file, code: 'model', first: (rows?.start ?? 0) * elements(shape.slice(1)) })
        }
        if (rows === undefined) checked.add(name)
        return weight
      },
      close: () => reader.close(),
    }
  } catch (error) {
    await reader.close()
    throw error
  }
}

interface OpenQuantized {
  /** Undefined: they are loaded as floats. */
  readonly quantization: Quantization | undefined
  readonly entries: ReadonlyMap<string, QuantizedEntry>
  /** Tensors that only describe others. */
  readonly scales: readonly string[]
}

/** The quantized weights, if config.json says that there are any. */
async function openLinears(
  folder: string,
  reader: TensorReader,
  config: DecoderConfig,
  specs: readonly WeightSpec[],
): Promise<OpenQuantized | undefined> {
  const { quantization: promised } = config
  if (promised === undefined) return undefined
  if (promised.kind === 'fp8') {
    const entries = openFp8(reader, { folder, specs, promised })
    return { quantization: undefined, entries, scales: [...entries.keys()].map(scalesOf) }
  }
  const names = new Set(linearPaths(config).map((path) => `${path}.weight`))
  const linears = specs.filter(({ name }) => names.has(name))
  const { quantization, entries } = await openQuantized(reader, { folder, linears, promised })
  const head = entries.get(headName)
  if (head === undefined) return { quantization, entries, scales: [] }
  // Programs of the head compute with floats: one that is quantized, which transformers does only on demand, is expanded.
  const expanded: QuantizedEntry = { storage: 'F32', load: async () => widened(await head.load()) }
  return { quantization, entries: new Map([...entries, [headName, expanded]]), scales: [] }
}

async function loadFloats(
  reader: TensorReader,
  name: string,
  reuse: StoredWeight | undefined,
  rows: Rows | undefined,
): Promise<FloatWeight> {
  const info = reader.tensors.get(name)
  const storage = floatDtype(reader, name)
  if (info !== undefined && isFloat8(info.dtype)) {
    const bits = float8Bits(info.dtype)
    return { storage, shape: info.shape, data: Uint16Array.from(await reader.read(name), (code) => bits[code]!) }
  }
  const old = reuse && isFloat(reuse) && reuse.storage === storage ? reuse.data : undefined
  const { byteLength: size = 0, shape = [] } = info ?? {}
  const rowBytes = size / (shape[0] ?? 1)
  const range =
    rows === undefined ? { start: 0, end: size } : { start: rows.start * rowBytes, end: rows.end * rowBytes }
  const bytes = await reader.read(name, old?.byteLength === range.end - range.start ? bytesOf(old) : undefined, range)
  const { buffer, byteOffset, byteLength } = bytes
  const data =
    storage === 'F32'
      ? new Float32Array(buffer, byteOffset, byteLength / 4)
      : new Uint16Array(buffer, byteOffset, byteLength / 2)
  return { storage, shape: rows === undefined ? shape : [rows.end - rows.start, ...shape.slice(1)], data }
}

/** Random weights as transformers initialises them: normal(0, initializer_range), norms such that they scale by 1, biases 0. */
export function randomWeights(config: DecoderConfig, seed: number): WeightSource {
  const specs = weightSpecs(config)
  return {
    config,
    specs,
    quantization: undefined,
    storedName: (name) => name,
    beside: [],
    storage: () => config.dtype,
    load: async (name) => {
      const index = specs.findIndex((spec) => spec.name === name)
      const shape = specs[index]?.shape
      if (shape === undefined) throw internalError(`a ${config.modelType} model has no weight ${name}`)
      const data = new Float32Array(elements(shape))
      if (isNorm(name)) data.fill(1 - config.normOffset)
      else if (!name.endsWith('.bias')) fillNormal(data, 0, config.initializerRange, stream(seed, 'weights', index))
      return { storage: 'F32', shape, data }
    },
    close: async () => {},
  }
}

function floatDtype(reader: TensorReader, name: string): FloatDtype {
  const dtype = reader.tensors.get(name)?.dtype
  // All of their numbers are numbers of bf16.
  if (dtype !== undefined && isFloat8(dtype)) return 'BF16'
  return dtype === 'F16' || dtype === 'BF16' ? dtype : 'F32'
}

const belongs = 'Is config.json the one that belongs to these weights?'

function checkTensor(folder: string, reader: TensorReader, { name, shape }: WeightSpec): void {
  const tensor = reader.tensors.get(name)
  if (tensor === undefined) {
    throw new LowrankError(
      'model',
      `${folder}: the tensor ${name} that config.json asks for is not in the checkpoint`,
      { hint: belongs },
    )
  }
  if (tensor.shape.length !== shape.length || tensor.shape.some((size, i) => size !== shape[i])) {
    throw new LowrankError(
      'model',
      `${tensor.file}: tensor ${name} has shape [${tensor.shape.join(', ')}], but config.json asks for [${shape.join(', ')}]`,
      { hint: belongs },
    )
  }
  if (!['F32', 'F16', 'BF16'].includes(tensor.dtype) && !isFloat8(tensor.dtype)) {
    throw new LowrankError(
      'model',
      `${tensor.file}: tensor ${name} is ${tensor.dtype}; F32, F16, BF16, F8_E4M3 and F8_E5M2 are supported`,
      {
        hint: 'Quantized models are read if their config.json has the quantization_config of bitsandbytes, or that of FP8.',
      },
    )
  }
}
