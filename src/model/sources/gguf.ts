import { type Architecture, conversionOf, hubName, ropeTensors } from '../../formats/gguf/architectures.ts'
import { architectureOf, configOf } from '../../formats/gguf/config.ts'
import { GgufFile, type GgufTensor } from '../../formats/gguf/file.ts'
import { reorderRows } from '../../formats/gguf/rows.ts'
import { indexOfBrokenBlock, isBlockType } from '../../storage/gguf/index.ts'
import { emptySplit, isSplitType, splitBlocks, type SplitType } from '../../storage/gguf/split.ts'
import {
  type BlockStorage,
  isFloat,
  isStored,
  type SplitWeight,
  type Storage,
  type StoredWeight,
} from '../../storage/stored.ts'
import { widened } from '../../storage/formats.ts'
import { bytesOf, type FloatDtype } from '../../util/dtype.ts'
import { internalError, LowrankError } from '../../util/errors.ts'
import { elements } from '../../util/shape.ts'
import { parseDecoderConfig } from '../config.ts'
import type { DecoderConfig } from '../decoder.ts'
import { embeddingName, headName } from '../names.ts'
import { weightSpecs, type WeightSpec } from '../weight-specs.ts'
import { checkFinite, type WeightSource } from './source.ts'

/** A weight as a GGUF file stores it. */
interface Entry {
  readonly tensor: GgufTensor
  readonly storage: FloatDtype | BlockStorage
  /** Heads whose rows have to be put back in order; 0: none. */
  readonly heads: number
  /** What was added to it. */
  readonly offset: number
  /** Whether it is the weight of the output head, of which programs want slices. */
  readonly isHead: boolean
}

/**
 * Opens the weights of a GGUF file by the names of the hub model that it was made from, with what the converter did undone: every tensor is
 * checked to be there in its shape, and to be asked for. Blocks stay as they are. `load` makes all its calls to the system before it returns.
 */
export async function openGguf(path: string): Promise<WeightSource> {
  const file = await GgufFile.open(path)
  try {
    const architecture = architectureOf(file)
    const config = parseDecoderConfig(await configOf(file), path)
    const specs = weightSpecs(config)
    const entries = entriesOf(file, architecture, config, specs)
    const checked = new Set<string>()
    return {
      config,
      specs,
      quantization: undefined,
      storedName: (name) => name,
      beside: [],
      storage: (name) => {
        const entry = entries.get(name)
        return entry === undefined ? 'F32' : loadedAs(entry)
      },
      load: async (name, reuse) => {
        const entry = entries.get(name)
        if (entry === undefined) throw internalError(`${path} has no tensor for ${name}`)
        const kind = loadedAs(entry)
        if (typeof kind !== 'string' && kind.kind === 'split') return loadSplit(file, entry.tensor, kind.type)
        const weight = await loadEntry(file, entry, reuse)
        // Weights on disk are read again and again.
        if (!checked.has(name)) checkNumbers(weight, entry.tensor, path)
        checked.add(name)
        if (entry.offset !== 0) return shifted(weight, -entry.offset)
        return kind === entry.storage ? weight : widened(weight)
      },
      close: () => file.close(),
    }
  } catch (error) {
    await file.close()
    throw error
  }
}

/** What the tensors of a file are in the model: each is a weight of it, and there is one for each weight. */
function entriesOf(
  file: GgufFile,
  architecture: Architecture,
  config: DecoderConfig,
  specs: readonly WeightSpec[],
): ReadonlyMap<string, Entry> {
  const shapes = new Map(specs.map(({ name, shape }) => [name, shape]))
  const entries = new Map<string, Entry>()
  for (const tensor of file.tensors.values()) {
    if (ropeTensors.includes(tensor.name)) continue
    const name = hubName(architecture, tensor.name)
    const shape = name === undefined ? undefined : shapes.get(name)
    if (name === undefined || shape === undefined) {
      throw new LowrankError(
        'model',
        `${file.path} holds the tensor ${JSON.stringify(tensor.name)} [${tensor.shape.join(', ')}], which a ${config.modelType} model does not use`,
        { hint: 'The model may be of another kind than its metadata says; it would be computed without this tensor.' },
      )
    }
    if (tensor.shape.join() !== shape.join()) {
      throw new LowrankError(
        'model',
        `${file.path}: tensor ${tensor.name} has the shape [${tensor.shape.join(', ')}], but the metadata asks for [${shape.join(', ')}]`,
      )
    }
    const { interleaved, offset } = conversionOf(architecture, tensor.name)
    const count = { queries: config.numAttentionHeads, keys: config.numKeyValueHeads }
    entries.set(name, {
      tensor,
      storage: storageOf(file, tensor),
      heads: interleaved === undefined ? 0 : count[interleaved],
      offset,
      isHead: name === headName || (config.tieWordEmbeddings && name === embeddingName(config)),
    })
  }
  const missing = specs.find(({ name }) => !entries.has(name))
  if (missing === undefined) return entries
  throw new LowrankError(
    'model',
    `${file.path} has no tensor for ${missing.name}, which a ${config.modelType} model has`,
    {
      hint: 'The file may hold only a part of a model.',
    },
  )
}

const floats: ReadonlySet<string> = new Set<FloatDtype>(['F32', 'F16', 'BF16'])

function storageOf({ path }: GgufFile, { name, type }: GgufTensor): FloatDtype | BlockStorage {
  if (floats.has(type.name)) return type.name as FloatDtype
  if (isBlockType(type.name)) return { kind: 'blocks', type: type.name }
  throw new LowrankError('model', `${path}: tensor ${name} is of type ${type.name}, which is not supported`, {
    hint: 'Quantize the model again, as Q4_K_M for example: Q4_0 to Q8_0, Q2_K to Q6_K and IQ4_NL are supported.',
  })
}

/** What was shifted is f32 again. Programs compute with slices of a head: of blocks that llama.cpp gives no head, these are f32. */
function loadedAs({ storage, offset, isHead }: Entry): Storage {
  if (offset !== 0) return 'F32'
  if (!isHead || typeof storage === 'string') return storage
  return isSplitType(storage.type) ? { kind: 'split', type: storage.type } : 'F32'
}

/** Blocks with codes and scales apart, read a part at a time: both forms of a large head take much memory. */
async function loadSplit(file: GgufFile, { name, shape, type }: GgufTensor, split: SplitType): Promise<SplitWeight> {
  const [rows = 0, width = 0] = shape
  const blocks = emptySplit(split, rows, width)
  const count = elements(shape) / type.blockElements
  const memory = new Uint8Array(Math.min(count, partBlocks) * type.blockBytes)
  for (let first = 0; first < count; first += partBlocks) {
    const [start, end] = [first, Math.min(count, first + partBlocks)].map((at) => at * type.blockBytes) as [
      number,
      number,
    ]
    const bytes = await file.read(name, memory, { start, end })
    const broken = indexOfBrokenBlock(split, bytes)
    if (broken !== -1) throw brokenBlock(file.path, name, first + broken)
    splitBlocks(split, bytes, blocks, first)
  }
  return { storage: { kind: 'split', type: split }, shape, blocks }
}

const partBlocks = 2 ** 16

async function loadEntry(file: GgufFile, entry: Entry, reuse: StoredWeight | undefined): Promise<StoredWeight> {
  const { tensor, storage, heads } = entry
  const old = reuse !== undefined && sameStorage(reuse, storage) ? memoryOf(reuse) : undefined
  const into = old?.byteLength === tensor.byteLength ? old : undefined
  const bytes = await file.read(tensor.name, into)
  if (heads > 0) reorderRows(bytes, tensor.shape[0] ?? 0, heads, 'hub')
  const { shape } = tensor
  if (typeof storage !== 'string') return { storage, shape, bytes }
  const { buffer, byteOffset, byteLength } = bytes
  const data =
    storage === 'F32'
      ? new Float32Array(buffer, byteOffset, byteLength / 4)
      : new Uint16Array(buffer, byteOffset, byteLength / 2)
  return { storage, shape, data }
}

function memoryOf(weight: StoredWeight): Uint8Array<ArrayBuffer> | undefined {
  if (isStored(weight, 'blocks')) return weight.bytes
  return isFloat(weight) ? bytesOf(weight.data) : undefined
}

function sameStorage({ storage }: StoredWeight, wanted: FloatDtype | BlockStorage): boolean {
  if (typeof storage === 'string' || typeof wanted === 'string') return storage === wanted
  return storage.kind === 'blocks' && storage.type === wanted.type
}

function shifted(weight: StoredWeight, by: number): StoredWeight {
  const { data, shape } = widened(weight)
  for (let i = 0; i < data.length; i++) data[i] = data[i]! + by
  return { storage: 'F32', shape, data }
}

function checkNumbers(weight: StoredWeight, { name }: GgufTensor, file: string): void {
  if (isFloat(weight)) checkFinite(weight, { name, file, code: 'model' })
  if (!isStored(weight, 'blocks')) return
  const block = indexOfBrokenBlock(weight.storage.type, weight.bytes)
  if (block === -1) return
  throw brokenBlock(file, name, block)
}

function brokenBlock(file: string, tensor: string, block: number): LowrankError {
  return new LowrankError('model', `${file}: tensor ${tensor} has a scale that is not finite, in block ${block}`, {
    hint: 'The weights are damaged, or overflowed before they were quantized.',
  })
}
