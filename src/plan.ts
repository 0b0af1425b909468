import { quantizationText, type TrainConfig } from './config.ts'
import type { MemoryChoice, PreparedDecoder, WantedWeight } from './decoder.ts'
import { availableMemory, peakMemory } from './engine/machine.ts'
import { dimValue, type DimValues } from './graph/dims.ts'
import { arenaBytes, heapBytes, outputBytes, valueBytes } from './graph/footprint.ts'
import type { Program } from './graph/program.ts'
import { stageSizes, type DecoderStages } from './model/stages.ts'
import { storageBytes } from './quant/stored.ts'
import { evalBatches, largestMicroBatch, type BatchSize, type LargestMicroBatch } from './text/batches.ts'
import { dataBytes, type Dataset, type DatasetSummary } from './text/examples.ts'
import type { TrainEvent } from './train/events.ts'
import { stateBytes } from './train/optimizer.ts'
import { orderOf, totalSteps } from './train/trainer.ts'
import { LowrankError } from './util/errors.ts'
import { formatSize } from './util/size.ts'

/** What a run computes, as far as its memory goes. */
export interface Workload {
  /** The largest micro-batch that is trained on, and the largest of an evaluation. */
  readonly training: BatchSize | undefined
  readonly evaluation: BatchSize | undefined
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

export interface MemoryPlan extends MemoryChoice {
  readonly items: readonly MemoryItem[]
  /** Their sum: the highest resident memory expected. */
  readonly expected: number
  /** What the run was bound to, if it was. */
  readonly bound: number | undefined
  /** What would take less memory, in words. */
  readonly smaller: readonly string[]
}

/** The workload of a run. */
export function workloadOf(
  config: TrainConfig,
  { train, valid }: { readonly train: Dataset; readonly valid: Dataset | undefined },
): Workload {
  const { loadBestModelAtEnd, perDeviceEvalBatchSize } = config
  const order = orderOf(config, train.examples)
  const largest = largestMicroBatch(order, totalSteps(config, train.examples))
  const evaluation = valid && evalBatches(valid.examples, perDeviceEvalBatchSize, config).largest
  return {
    training: largest.size,
    largest,
    evaluation,
    microBatches: largest.microBatches,
    stateBytes: (name, count) => stateBytes(name, count, config),
    keepsBest: loadBestModelAtEnd,
    data: dataBytes(train.summary) + (valid === undefined ? 0 : dataBytes(valid.summary)),
  }
}

/** The workload of an evaluation. */
export function evaluationWorkload(
  batches: { readonly length: number; readonly largest: BatchSize },
  summary: DatasetSummary,
): Workload {
  return {
    training: undefined,
    evaluation: batches.largest,
    microBatches: batches.length,
    stateBytes: () => 0,
    keepsBest: false,
    data: dataBytes(summary),
  }
}

const elements = (shape: readonly number[]): number => shape.reduce((total, size) => total * size, 1)

/** What is reported of a plan. */
export function planEvent(prepared: PreparedDecoder, plan: MemoryPlan, steps: number): TrainEvent {
  const { config, quantization, threads } = prepared
  const { activations, expandWeights, headRows, streamed, expected, items, bound, smaller } = plan
  const count = (weights: readonly WantedWeight[]): number =>
    weights.reduce((total, { shape }) => total + elements(shape), 0)
  const wanted = prepared.wanted(prepared.stages(plan))
  return {
    type: 'plan',
    modelType: config.modelType,
    parameters: count(wanted),
    trainableParameters: count(wanted.filter(({ trainable }) => trainable)),
    steps,
    threads,
    activations,
    quantization: quantization && quantizationText(quantization),
    expandWeights,
    headRows,
    streamed,
    memory: { expected, items, bound, smaller },
  }
}

/** Without a bound, speed is bought with memory where the run takes no more than this share of what is free. */
const shareOfFree = 0.7

const [manyRows, someRows, fewRows] = [512, 128, 32]

/** What memory may be spent on, the fastest first. */
function choices(setting: 'keep' | 'recompute' | 'auto', streamable: boolean, microBatches: number): MemoryChoice[] {
  const resident = { streamed: undefined }
  const keep = [true, false].map((expandWeights): MemoryChoice => ({
    activations: 'keep',
    expandWeights,
    headRows: manyRows,
    ...resident,
  }))
  const frugal = { activations: 'recompute', expandWeights: false } as const
  const recompute = [someRows, fewRows].map((headRows): MemoryChoice => ({ ...frugal, headRows, ...resident }))
  const groups = [...new Set([microBatches, Math.ceil(microBatches / 4), 1])]
  const streamed = groups.map((group): MemoryChoice => ({ ...frugal, headRows: fewRows, streamed: { group } }))
  return [
    ...(setting === 'recompute' ? [] : keep),
    ...(setting === 'keep' ? [] : recompute),
    ...(setting === 'keep' || !streamable ? [] : streamed),
  ]
}

export interface PlanOptions {
  readonly setting: 'keep' | 'recompute' | 'auto'
  /** Most bytes the process may take. */
  readonly bound: number | undefined
  /** The choice that was made before: the only one there is. */
  readonly choice?: MemoryChoice | undefined
}

/**
 * Decides what a run spends memory on: kept activations first, then expanded weights; where memory is short, blocks stay on disk.
 *
 * @throws LowrankError `config`: even the smallest plan is above `bound`; `memory`: or above what is free.
 */
export function planMemory(
  prepared: PreparedDecoder,
  workload: Workload,
  { setting, bound, choice: made }: PlanOptions,
): MemoryPlan {
  const streamable = prepared.streamable && prepared.lora !== undefined
  const free = availableMemory()
  const budget = bound ?? shareOfFree * free
  const possible = made === undefined ? choices(setting, streamable, workload.microBatches) : [made]
  const plans = possible.map((choice) => () => {
    const items = memoryItems(prepared, workload, choice)
    const expected = items.reduce((total, { bytes }) => total + bytes, 0)
    return { ...choice, items, expected, bound, smaller: smaller(choice, workload, prepared) }
  })
  let last: MemoryPlan | undefined
  for (const plan of plans) {
    last = plan()
    if (last.expected <= budget) return last
  }
  if (last === undefined) throw new LowrankError('internal', 'internal: no memory plan to choose from')
  // Nobody set a bound: the smallest plan is tried as long as it fits at all.
  if (bound === undefined && last.expected <= free) return last
  const asked = bound === undefined ? `${formatSize(free)} are free` : `memory is bound to ${formatSize(bound)}`
  const largest = last.items.toSorted((a, b) => b.bytes - a.bytes).slice(0, 3)
  throw new LowrankError(
    bound === undefined ? 'memory' : 'config',
    `${asked}, but the ${made === undefined ? 'smallest plan for' : 'plan of'} this run takes ${formatSize(last.expected)}: ` +
      largest.map(({ what, bytes }) => `${what} ${formatSize(bytes)}`).join(', ') +
      ' and others',
    {
      hint:
        made === undefined
          ? `What takes less: ${last.smaller.join('; ')}.`
          : 'To go on with another plan, whose results may differ in their last bits, set "resumeAnyway" (--resume-anyway).',
    },
  )
}

/** Share of its bound by which a run may exceed it unnoticed. */
const tolerated = 0.1

/** Passes on the events of a run, and says once when it takes more memory than it is bound to. */
export async function* watchBound(
  { bound, expected, smaller }: MemoryPlan,
  events: AsyncGenerator<TrainEvent>,
): AsyncGenerator<TrainEvent> {
  let told = bound === undefined
  for await (const event of events) {
    yield event
    if (told || bound === undefined || (event.type !== 'step' && event.type !== 'eval')) continue
    const peak = peakMemory()
    if (peak <= (1 + tolerated) * bound) continue
    told = true
    const share = Math.round(100 * (peak / bound - 1))
    const message =
      `this run has taken ${formatSize(peak)} by step ${event.step}, ${share} % more than the ${formatSize(bound)} it is bound to ` +
      `(expected: ${formatSize(expected)}); it goes on. What takes less: ${smaller.join('; ')}, or a lower bound`
    yield { type: 'warning', message }
  }
}

function smaller(choice: MemoryChoice, { training }: Workload, prepared: PreparedDecoder): string[] {
  const { activations, streamed } = choice
  const full = prepared.lora === undefined
  const words = [
    activations === 'keep' ? '"activations": recompute' : undefined,
    training !== undefined && training.batch > 1
      ? 'a smaller perDeviceTrainBatchSize (with more gradientAccumulationSteps, the result is the same)'
      : undefined,
    'a smaller maxLength',
    full ? '"method": lora or qlora, or "optim": adamw-8bit' : undefined,
    !full && prepared.quantization === undefined ? '"method": qlora' : undefined,
    !full && streamed === undefined && !prepared.streamable
      ? 'a base quantized beforehand (lowrank quantize), whose blocks can stay on disk'
      : undefined,
    streamed === undefined && prepared.streamable && !full ? '"memory": a bound, to leave blocks on disk' : undefined,
  ]
  return words.filter((word) => word !== undefined)
}

/** Node.js, the runtime's code, the tokenizer, compiled programs, and buffers that are not collected yet. */
const runtimeBytes = 250e6

/** What a run takes by a choice. */
export function memoryItems(prepared: PreparedDecoder, workload: Workload, choice: MemoryChoice): MemoryItem[] {
  const stages = prepared.stages(choice)
  const { streamed } = choice
  const wanted = prepared.wanted(stages)
  const { quantization } = prepared
  const doubleQuant = quantization?.kind === '4bit' && quantization.doubleQuant
  const stored = (weights: readonly WantedWeight[]): number =>
    weights.reduce((total, { storage, shape }) => total + storageBytes(storage, shape, doubleQuant), 0)
  const trained = wanted.filter(({ trainable }) => trainable)
  const frozen = wanted.filter(({ trainable }) => !trainable)
  const [onDisk, inMemory] = [true, false].map((disk) =>
    frozen.filter(({ block }) => (streamed !== undefined && block !== undefined) === disk),
  ) as [WantedWeight[], WantedWeight[]]
  const blockBytes = stages.blocks.map((_, i) => stored(onDisk.filter(({ block }) => block === i)))
  // The weight, its gradient, perhaps a copy, and what the optimizer keeps.
  const trainedBytes = trained.reduce((total, { name, shape }) => {
    const count = elements(shape)
    return total + (8 + (workload.keepsBest ? 4 : 0)) * count + workload.stateBytes(name, count)
  }, 0)
  return [
    { what: 'runtime', bytes: runtimeBytes },
    { what: 'examples', bytes: workload.data },
    { what: 'base weights', bytes: stored(inMemory) },
    { what: 'blocks read from disk, two at a time', bytes: 2 * Math.max(...blockBytes) },
    { what: 'trained weights, gradients and optimizer', bytes: trainedBytes },
    { what: 'unpacked weights of a block', bytes: unpackedBytes(stages) },
    { what: 'activations', bytes: (streamed?.group ?? 1) * activationBytes(stages, workload) },
    { what: 'computation', bytes: computationBytes(stages, workload, choice) },
  ].filter(({ bytes }) => bytes > 0)
}

/** Packed weights are unpacked for the backward pass, those of one block at a time. */
function unpackedBytes({ blocks }: DecoderStages): number {
  const sizes = blocks.map(({ backward, parameters }) =>
    parameters
      .flatMap(({ inputs }) => inputs)
      .filter(({ part, value }) => part === 'unpacked' && backward?.inputs.some((port) => port.value === value))
      .reduce((total, { value }) => total + valueBytes(value, {}), 0),
  )
  return Math.max(...sizes)
}

/**
 * What a micro-batch leaves for the backward pass: positions and attention masks, the input of each block, what its forward pass returned
 * besides y, dropout masks.
 */
function activationBytes({ blocks }: DecoderStages, { training, evaluation }: Workload): number {
  const size = training ?? evaluation
  if (size === undefined) return 0
  const sizes = stageSizes(size)
  const context = blocks[0]?.evaluate.inputs.filter(({ name }) => /^(cos|sin|mask\.\d+)$/.test(name)) ?? []
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

/** Memory of the programs while they run: with kept activations each keeps it for its next run, otherwise one after the other takes it. */
function computationBytes(stages: DecoderStages, workload: Workload, { activations, headRows }: MemoryChoice): number {
  const { blocks, head } = stages
  const runs = new Map<Program, DimValues>()
  const use = (program: Program | undefined, sizes: DimValues): void => {
    if (program !== undefined && !runs.has(program)) runs.set(program, sizes)
  }
  const { training, evaluation } = workload
  if (training !== undefined) {
    for (const { forward, backward } of blocks) {
      use(forward, stageSizes(training))
      use(backward, stageSizes(training))
    }
    use(head.train, { rows: Math.min(training.rows, headRows) })
  }
  if (evaluation !== undefined) {
    for (const block of blocks) use(block.evaluate, stageSizes(evaluation))
    use(head.evaluate, { rows: Math.min(evaluation.rows, headRows) })
  }
  const all = [...runs]
  // Results are copied by the runtime, and the copies wait for the garbage collector.
  const results = 2 * Math.max(...all.map(([program, sizes]) => outputBytes(program, sizes)))
  if (activations === 'keep') {
    return results + arenaShare * all.reduce((total, [program, sizes]) => total + arenaBytes(program, sizes), 0)
  }
  const heap = all.map(([program, sizes]) => heapBytes(program, sizes))
  const [kept, mapped] = [Math.max(...heap.map((most) => most.kept)), Math.max(...heap.map((most) => most.mapped))]
  return results + heapShare * kept + mapped
}
