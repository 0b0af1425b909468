import type { MemoryChoice } from '../config/index.ts'
import type { PreparedDecoder, WantedWeight } from './decoder.ts'
import { chunkRows } from '../engine/pipeline.ts'
import { dimValue, type DimValues } from '../graph/dims.ts'
import { arenaBytes, heapBytes, outputBytes, valueBytes } from '../graph/footprint.ts'
import type { Program } from '../graph/program.ts'
import { stageSizes, type DecoderStages } from '../model/stages.ts'
import { storageBytes } from '../storage/formats.ts'
import type { LargestMicroBatch, LargestSize } from '../text/batches.ts'
import { elements } from '../util/shape.ts'

/** What a run computes, as far as its memory goes. */
export interface Workload {
  /** The largest micro-batch that is trained on, and the largest of an evaluation. */
  readonly training: LargestSize | undefined
  readonly evaluation: LargestSize | undefined
  /** Where that of training is. */
  readonly largest?: LargestMicroBatch
  /** Micro-batches of an optimizer step, or of an evaluation. */
  readonly microBatches: number
  /** Bytes that the optimizer keeps for a trained weight of `count` elements. */
  readonly stateBytes: (name: string, count: number) => number
  /** Whether a copy of the best trained weights is kept. */
  readonly keepsBest: boolean
  /** Bytes of the examples. */
  readonly data: number
}

/** A part of the memory a run takes. */
export interface MemoryItem {
  readonly what: string
  readonly bytes: number
}

/** Node.js, the runtime's code, compiled programs, and buffers that are not collected yet. */
const runtimeBytes = 220e6

/**
 * What reading a tokenizer has left, for each token: its file as objects, some ten times its size. Of a large one most is garbage, whose memory
 * computations take up. Measured with vocabularies of 2,500, 49,152 and 262,144.
 */
const [bytesOfToken, mostOfTokenizer] = [700, 60e6]

/** What a run takes by a choice. `stages`: those of the choice, where they have been built already. */
export function memoryItems(
  prepared: PreparedDecoder,
  workload: Workload,
  choice: MemoryChoice,
  stages = prepared.stages(choice),
): MemoryItem[] {
  const computed = computedSizes(workload, {
    rows: stages,
    trees: () => prepared.stages(choice, { trees: true }),
  })
  const { streamed } = choice
  const wanted = prepared.wanted(stages)
  const stored = (weights: readonly WantedWeight[]): number =>
    weights.reduce((total, { storage, shape }) => total + storageBytes(storage, shape), 0)
  const trained = wanted.filter(({ trainable }) => trainable)
  const frozen = wanted.filter(({ trainable }) => !trainable)
  const [onDisk, inMemory] = [true, false].map((disk) =>
    frozen.filter(({ block }) => (streamed !== undefined && block !== undefined) === disk),
  ) as [WantedWeight[], WantedWeight[]]
  const blockBytes = stages.blocks.map((_, i) => stored(onDisk.filter(({ block }) => block === i)))
  const trainedBytes = 4 * trained.reduce((total, { shape }) => total + elements(shape), 0)
  const optimizerBytes = trained.reduce(
    (total, { name, shape }) => total + workload.stateBytes(name, elements(shape)),
    0,
  )
  return [
    { what: 'runtime', bytes: runtimeBytes },
    { what: 'tokenizer', bytes: Math.min(mostOfTokenizer, bytesOfToken * prepared.config.vocabSize) },
    { what: 'examples', bytes: workload.data },
    { what: 'base weights', bytes: stored(inMemory) },
    { what: 'blocks read from disk, two at a time', bytes: 2 * Math.max(...blockBytes) },
    { what: 'trained weights', bytes: trainedBytes },
    { what: 'gradients', bytes: trainedBytes },
    { what: 'optimizer', bytes: optimizerBytes },
    { what: 'copy of the best weights', bytes: workload.keepsBest ? trainedBytes : 0 },
    { what: 'unpacked weights of a block', bytes: unpackedBytes(stages) },
    { what: 'activations', bytes: (streamed?.group ?? 1) * activationBytes(computed) },
    { what: 'computation', bytes: computationBytes(stages.head, workload, computed, choice) },
  ].filter(({ bytes }) => bytes > 0)
}

/** The largest micro-batches, of each kind that has blocks of its own. */
interface ComputedSizes {
  readonly training: readonly ComputedSize[]
  readonly evaluation: readonly ComputedSize[]
}

interface ComputedSize {
  readonly blocks: DecoderStages['blocks']
  readonly sizes: DimValues
}

function computedSizes(
  { training, evaluation }: Workload,
  { rows, trees }: { readonly rows: DecoderStages; readonly trees: () => DecoderStages },
): ComputedSizes {
  const both = [training, evaluation].map((largest) => [largest, largest?.other].filter((size) => size !== undefined))
  const made = both.flat().some((size) => size.trees) ? trees() : rows
  const [ofTraining = [], ofEvaluation = []] = both.map((some) =>
    some.map((size) => ({ blocks: (size.trees === true ? made : rows).blocks, sizes: stageSizes(size) })),
  )
  return { training: ofTraining, evaluation: ofEvaluation }
}

/** Packed weights are unpacked where programs want them so, those of one block at a time. */
function unpackedBytes({ blocks }: DecoderStages): number {
  const sizes = blocks.map(({ evaluate, forward, backward, parameters }) => {
    const read = new Set([evaluate, forward, backward].flatMap((one) => one?.inputs.map(({ name }) => name) ?? []))
    return parameters
      .flatMap(({ inputs }) => inputs)
      .filter(({ computed, port }) => computed && read.has(port))
      .reduce((total, { value }) => total + valueBytes(value, {}), 0)
  })
  return Math.max(...sizes)
}

/**
 * What a micro-batch leaves for the backward pass: positions and attention masks, the input of each block, what its forward pass returned
 * besides y, dropout masks.
 */
function activationBytes({ training, evaluation }: ComputedSizes): number {
  const largest = training.length > 0 ? training : evaluation
  return Math.max(0, ...largest.map(leftBytes))
}

function leftBytes({ blocks, sizes }: ComputedSize): number {
  // One for each kind of layer, since layers of a kind share them.
  const kinds = new Map(blocks.map((block) => [block.kind, block.evaluate]))
  const context = [...kinds.values()].flatMap(({ inputs }) =>
    inputs.filter(({ name }) => /^(cos|sin|mask\.\d+)$/.test(name)),
  )
  let total = context.reduce((bytes, { value }) => bytes + valueBytes(value, sizes), 0)
  for (const { forward, backward, dropouts } of blocks) {
    if (backward === undefined) continue
    const x = forward.inputs.find(({ name }) => name === 'x')
    total += (x === undefined ? 0 : valueBytes(x.value, sizes)) + outputBytes(forward, sizes)
    total -= forward.outputs
      .filter(({ name }) => name === 'y')
      .reduce((y, { value }) => y + valueBytes(value, sizes), 0)
    for (const { shape } of dropouts) total += shape.reduce<number>((n, dim) => n * dimValue(dim, sizes), 1)
  }
  return total
}

/**
 * What arenas and the heap of the C library hold for a byte that programs use at once: free pieces between those in use, which neither gives
 * back. Measured by `npm run bench:memory`.
 */
const [arenaShare, heapShare] = [1.05, 1.6]

/** Numbers of rows that a head is run with, at most: more make no difference to what its arena has taken. */
const mostHeadSizes = 32

/** The sizes of the chunks in which labels go through the head, in the order in which they come, the largest among them. */
function headSizes(labelCounts: readonly number[], headRows: number): DimValues[] {
  const rows = [...new Set(labelCounts.map((count) => chunkRows(count, headRows)))]
  const largest = rows.reduce((most, one) => Math.max(most, one), 0)
  return [...new Set([...rows.slice(0, mostHeadSizes), largest])].map((one) => ({ rows: one }))
}

/** Memory of the programs while they run: with kept activations each keeps it for its next run, otherwise one after the other takes it. */
function computationBytes(
  head: DecoderStages['head'],
  { training, evaluation, largest }: Workload,
  computed: ComputedSizes,
  { activations, headRows }: MemoryChoice,
): number {
  const runs = new Map<Program, readonly DimValues[]>()
  const use = (program: Program | undefined, ...sizes: readonly DimValues[]): void => {
    if (program === undefined) return
    const known = runs.get(program) ?? []
    runs.set(program, [...known, ...sizes.filter((one) => !known.includes(one))])
  }
  for (const { blocks, sizes } of computed.training) {
    for (const { forward, backward } of blocks) {
      use(forward, sizes)
      use(backward, sizes)
    }
  }
  if (training !== undefined) use(head.train, ...headSizes(largest?.labelCounts ?? [training.rows], headRows))
  for (const { blocks, sizes } of computed.evaluation) for (const block of blocks) use(block.evaluate, sizes)
  if (evaluation !== undefined) use(head.evaluate, { rows: Math.min(evaluation.rows, headRows) })
  const all = [...runs]
  const most = (of: (sizes: DimValues) => number, sizes: readonly DimValues[]): number => Math.max(...sizes.map(of))
  // What a program hands to the next lies in one of two memories; what is kept of forward passes counts as activations.
  const passed = all.filter(([{ name }]) => name !== 'block.forward')
  const results = 2 * Math.max(0, ...passed.map(([program, sizes]) => most((one) => outputBytes(program, one), sizes)))
  if (activations === 'keep') {
    return results + arenaShare * all.reduce((total, [program, sizes]) => total + arenaBytes(program, ...sizes), 0)
  }
  const heap = all.flatMap(([program, sizes]) => sizes.map((one) => heapBytes(program, one)))
  const [kept, mapped] = [Math.max(...heap.map((most) => most.kept)), Math.max(...heap.map((most) => most.mapped))]
  return results + heapShare * kept + mapped
}
