import type { Program } from '../graph/program.ts'
import { fedPart, storedBytes, type PartSpec } from '../storage/formats.ts'
import type { StoredWeight } from '../storage/stored.ts'
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

interface StreamOptions {
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

/** What a weight is fed as: see `StageParameter` of the model. */
export interface FedWeight {
  readonly name: string
  /** The weights whose rows lie one after the other in it, where it is more than one: a constant. */
  readonly joined?: readonly string[]
  readonly inputs: readonly FedInput[]
}

type FedInput = PartSpec & { readonly port: string }

/** An unpacked weight, which stays as long as the same is asked for: micro-batches that share a block unpack it once. */
interface Unpacked {
  readonly memory: Float32Array
  readonly name: string
  readonly lookup: WeightLookup
}

/** Turns stored weights into what programs are fed. What is computed of them goes through memory that the next block overwrites. */
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

  #feed(input: FedInput, name: string, lookup: WeightLookup): HostTensor {
    const { dtype, shape } = input
    const fed = fedPart(lookup(name), input)
    if ('data' in fed) return { dtype, shape, data: fed.data }
    const before = this.#scratch.get(input.port)
    const memory = before?.memory.length === fed.count ? before.memory : new Float32Array(fed.count)
    if (before?.memory !== memory || before.name !== name || before.lookup !== lookup) {
      fed.fill(memory)
      this.#scratch.set(input.port, { memory, name, lookup })
    }
    return f32Tensor(memory, shape)
  }
}
