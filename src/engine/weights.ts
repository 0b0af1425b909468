import type { Program } from '../graph/program.ts'
import { blockScales, dequantizeFourBit, type FourBit } from '../storage/fourbit.ts'
import { fedBlockSize, storedBytes, type FourBitWeight, type StoredWeight } from '../storage/stored.ts'
import { internalError } from '../util/errors.ts'
import { f32Tensor, type Feeds, type HostTensor } from './onnxruntime/runtime.ts'

/** The weights of a stage, by their names in the model. */
export type WeightLookup = (name: string) => StoredWeight

/** Where the weights of the blocks are. */
export interface WeightStore {
  /** Of the embedding, the head, and whatever is trained: always in memory. */
  readonly resident: WeightLookup
  /** Of a block. What is on disk is read, and the reading of `next`, the block asked for after this one, begins. */
  block(index: number, next?: number): Promise<WeightLookup>
  /** Bytes of blocks read from disk so far. */
  readonly bytesRead: number
}

export function residentWeights(weights: ReadonlyMap<string, StoredWeight>): WeightStore {
  const resident: WeightLookup = (name) => {
    const weight = weights.get(name)
    if (weight === undefined) throw internalError(`the weight ${name} is not loaded`)
    return weight
  }
  return { resident, block: async () => resident, bytesRead: 0 }
}

export interface StreamOptions {
  readonly resident: ReadonlyMap<string, StoredWeight>
  /** The weights of block `index` that are on disk, in an order that is the same for all blocks. */
  readonly names: (index: number) => readonly string[]
  /** Reads one, into the memory of `reuse` where that has the same form. All system reads are issued before it returns. */
  readonly load: (name: string, reuse: StoredWeight | undefined) => Promise<StoredWeight>
}

/**
 * Blocks on disk, two of them in memory: while one computes, the next is read (by threads of the system, so that a computation that
 * holds the JavaScript thread does not hold the disk).
 */
export class StreamedWeights implements WeightStore {
  readonly resident: WeightLookup
  readonly #o: StreamOptions
  readonly #slots: [Slot, Slot] = [emptySlot(), emptySlot()]
  bytesRead = 0

  constructor(options: StreamOptions) {
    this.#o = options
    this.resident = residentWeights(options.resident).resident
  }

  async block(index: number, next?: number): Promise<WeightLookup> {
    const [first, second] = this.#slots
    const slot = first.block === index ? first : second.block === index ? second : first
    const other = slot === first ? second : first
    if (slot.block !== index) this.#read(slot, index)
    const weights = await slot.weights
    if (next !== undefined && next !== index && other.block !== next) {
      // What was read ahead into the other slot and never asked for must have arrived before it is overwritten.
      await other.weights
      this.#read(other, next)
    }
    return (name) => weights.get(name) ?? this.resident(name)
  }

  #read(slot: Slot, block: number): void {
    const before = slot.weights
    slot.block = block
    const read = async (): Promise<ReadonlyMap<string, StoredWeight>> => {
      const old = [...(await before).values()]
      const names = this.#o.names(block)
      const weights = await Promise.all(names.map((name, i) => this.#o.load(name, old[i])))
      this.bytesRead += weights.reduce((total, weight) => total + storedBytes(weight), 0)
      return new Map(names.map((name, i) => [name, weights[i]!]))
    }
    slot.weights = read()
    // Reported where it is awaited; a block that is never asked for fails nobody.
    slot.weights.catch(() => {})
  }
}

interface Slot {
  block: number | undefined
  weights: Promise<ReadonlyMap<string, StoredWeight>>
}

function emptySlot(): Slot {
  return { block: undefined, weights: Promise.resolve(new Map<string, StoredWeight>()) }
}

interface FedPart {
  readonly port: string
  readonly part: 'data' | 'scales' | 'unpacked'
  readonly rows?: { readonly start: number; readonly end: number }
}

/** What a weight is fed as: see `StageParameter` of the model. */
export interface FedWeight {
  readonly name: string
  readonly inputs: readonly FedPart[]
}

/** An unpacked weight, which stays as long as the same is asked for: micro-batches that share a block unpack it once. */
interface Unpacked {
  readonly memory: Float32Array
  readonly name: string
  readonly lookup: WeightLookup
}

/** Turns stored weights into what programs are fed. Unpacked weights and scales go through memory that the next block overwrites. */
export class WeightFeeds {
  readonly #scratch = new Map<string, Unpacked>()

  /** Of all weights of a stage, what one of its programs reads. */
  of(parameters: readonly FedWeight[], program: Program, lookup: WeightLookup): Feeds {
    const wanted = new Set(program.inputs.map(({ name }) => name))
    const feeds: Record<string, HostTensor> = {}
    for (const { name, inputs } of parameters) {
      for (const input of inputs) if (wanted.has(input.port)) feeds[input.port] = this.#feed(input, name, lookup)
    }
    return feeds
  }

  #feed(input: FedPart, name: string, lookup: WeightLookup): HostTensor {
    const { part, rows } = input
    const weight = lookup(name)
    if ('packed' in weight) return this.#packed(input, weight, name, lookup)
    if (part === 'scales' && 'scale' in weight) {
      const scales = weight.scale.map((scale) => scale / 127)
      return f32Tensor(scales, [scales.length])
    }
    const { shape, data } = weight
    const dtype = data instanceof Float32Array ? 'f32' : data instanceof Int8Array ? 'i8' : 'u16'
    if (rows === undefined) return { dtype, shape, data }
    const [, ...width] = shape
    const size = width.reduce((total, dim) => total * dim, 1)
    return { dtype, shape: [rows.end - rows.start, ...width], data: data.subarray(rows.start * size, rows.end * size) }
  }

  #packed({ port, part }: FedPart, weight: FourBitWeight, name: string, lookup: WeightLookup): HostTensor {
    const { packed, shape, storage } = weight
    if (part === 'data') return { dtype: 'u8', shape: [packed.codes.length], data: packed.codes }
    if (part === 'scales' && !('offset' in packed.scales) && fedBlockSize(storage) === storage.blockSize) {
      return f32Tensor(packed.scales.absmax, [packed.scales.absmax.length])
    }
    const count = part === 'unpacked' ? packed.count : Math.ceil(packed.count / fedBlockSize(storage))
    const before = this.#scratch.get(port)
    const memory = before?.memory.length === count ? before.memory : new Float32Array(count)
    if (before?.memory !== memory || before.name !== name || before.lookup !== lookup) {
      if (part === 'unpacked') dequantizeFourBit(packed, memory)
      else fillScales(packed, fedBlockSize(storage), memory)
      this.#scratch.set(port, { memory, name, lookup })
    }
    return f32Tensor(memory, part === 'unpacked' ? shape : [count])
  }
}

/** A scale for each block of `fed` elements. */
function fillScales(packed: FourBit, fed: number, out: Float32Array): void {
  if (fed === packed.blockSize) {
    blockScales(packed, out)
    return
  }
  const own = blockScales(packed)
  for (let i = 0; i < out.length; i++) out[i] = own[Math.floor((i * fed) / packed.blockSize)]!
}
