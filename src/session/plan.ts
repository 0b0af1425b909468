import type { MatmulPrecision, MemoryChoice, TrainConfig } from '../config/index.ts'
import { availableMemory } from '../engine/machine.ts'
import { LowrankError } from '../util/errors.ts'
import { formatSize } from '../util/format.ts'
import { addressesAreLimited } from '../util/limits.ts'
import type { PreparedDecoder } from './decoder.ts'
import { type MemoryItem, memoryItems, type Workload } from './memory-items.ts'

export interface MemoryPlan extends MemoryChoice {
  readonly items: readonly MemoryItem[]
  /** Their sum: the highest resident memory expected. */
  readonly expected: number
  /** What the run was bound to, if it was. */
  readonly bound: number | undefined
  /** What would take less memory, in words. */
  readonly smaller: readonly string[]
}

/** Whether a run may yet take more than there is: its plan is not far below what is free, or there is a bound to it. */
export function mayFallShort({ expected, bound }: MemoryPlan): boolean {
  return bound !== undefined || addressesAreLimited() || 2 * expected > availableMemory()
}

/** The smallest plan of a run takes more than there is. */
export class MemoryShortage extends LowrankError {
  /** Bytes of that plan. */
  readonly needed: number

  constructor(code: 'memory' | 'config', message: string, { needed, hint }: { needed: number; hint: string }) {
    super(code, message, { hint })
    this.needed = needed
  }
}

/** Without a bound, speed is bought with memory where the run takes no more than this share of what is free. */
export const shareOfFree = 0.7

type HeadRows = readonly [many: number, some: number, few: number]

/**
 * How many rows may go through the head at once, from most to fewest. Their logits take no more than 2^28 bytes, of which two copies exist:
 * beyond that, more rows make no step faster, and the arena never gives back what they took.
 */
export function headRowsOf({ vocabSize }: { readonly vocabSize: number }): HeadRows {
  const most = Math.max(1, Math.floor(2 ** 28 / (4 * vocabSize)))
  return [Math.min(512, most), Math.min(128, most), Math.min(32, most)]
}

/** What memory may be spent on, the fastest first. */
export function memoryChoices(
  setting: PlanOptions['setting'],
  streamable: boolean,
  {
    microBatches,
    headRows: [many, some, few],
    matmulPrecision = 'highest',
  }: Pick<Workload, 'microBatches'> & { headRows: HeadRows; matmulPrecision?: MatmulPrecision | undefined },
): MemoryChoice[] {
  const keep = [true, false].flatMap((expandWeights) =>
    [many, some].map((headRows): MemoryChoice => ({ activations: 'keep', expandWeights, headRows, matmulPrecision })),
  )
  const frugal = { activations: 'recompute', expandWeights: false, matmulPrecision } as const
  const recompute = [some, few].map((headRows): MemoryChoice => ({ ...frugal, headRows }))
  const groups = [...new Set([microBatches, Math.ceil(microBatches / 4), 1])]
  // Blocks on disk would be cut into slices anew each time they are read.
  const onDisk = { ...frugal, headRows: few, matmulPrecision: 'highest' } as const
  const streamed = groups.map((group): MemoryChoice => ({ ...onDisk, streamed: { group } }))
  return [
    ...(setting === 'recompute' ? [] : keep),
    ...(setting === 'keep' ? [] : recompute),
    ...(setting === 'keep' || !streamable ? [] : streamed),
  ]
}

/** Whether the blocks of a run may stay on disk: not where they are trained, or would be quantized each time they are read. */
export function canStream({ streamable, lora }: Pick<PreparedDecoder, 'streamable' | 'lora'>): boolean {
  return streamable && lora !== undefined
}

export interface PlanOptions {
  readonly setting: TrainConfig['activations']
  /** Most bytes the process may take. */
  readonly bound: number | undefined
  /** `highest` by default. */
  readonly matmulPrecision?: MatmulPrecision
  /** The choice that was made before: the only one there is. */
  readonly choice?: MemoryChoice | undefined
}

/**
 * Decides what a run spends memory on: kept activations first, then expanded weights; where memory is short, blocks stay on disk.
 *
 * @throws MemoryShortage `config`: even the smallest plan is above `bound`; `memory`: or above what is free.
 */
export function planMemory(
  prepared: PreparedDecoder,
  workload: Workload,
  { setting, bound, matmulPrecision, choice: made }: PlanOptions,
): MemoryPlan {
  const streamable = canStream(prepared)
  const free = availableMemory()
  const budget = bound ?? shareOfFree * free
  const possible =
    made === undefined
      ? memoryChoices(setting, streamable, { ...workload, headRows: headRowsOf(prepared.config), matmulPrecision })
      : [made]
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
  throw new MemoryShortage(
    bound === undefined ? 'memory' : 'config',
    `${asked}, but the ${made === undefined ? 'smallest plan for' : 'plan of'} this run takes ${formatSize(last.expected)}: ` +
      largest.map(({ what, bytes }) => `${what} ${formatSize(bytes)}`).join(', ') +
      ' and others',
    {
      needed: last.expected,
      hint:
        made === undefined
          ? `What takes less: ${last.smaller.join('; ')}.`
          : 'To continue with another plan, whose results may differ in their last bits, set "resumeAnyway" (--resume-anyway).',
    },
  )
}

function smaller(choice: MemoryChoice, { training }: Workload, prepared: PreparedDecoder): string[] {
  const { activations, streamed } = choice
  const full = prepared.lora === undefined
  const words = [
    activations === 'keep' ? '"activations": recompute' : undefined,
    training !== undefined && (training.batch > 1 || training.trees === true)
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
