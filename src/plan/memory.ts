import type { MatmulPrecision, MemoryChoice } from '../config/index.ts'
import type { PreparedDecoder } from '../session/decoder.ts'
import { programKey } from '../session/held.ts'
import { type MemoryItem, memoryItems, type Workload } from '../session/memory-items.ts'
import { canStream, headRowsOf, memoryChoices } from '../session/plan.ts'
import type { DecoderStages } from '../model/stages.ts'
import type { Place } from './methods.ts'

/** What a run of one method takes of memory, by the plan that training makes; its programs are written once. */
export class MemoryModel {
  readonly #prepared: PreparedDecoder
  readonly #matmulPrecision: MatmulPrecision
  readonly #stages = new Map<string, DecoderStages>()

  constructor(prepared: PreparedDecoder, matmulPrecision: MatmulPrecision = 'highest') {
    this.#prepared = prepared
    this.#matmulPrecision = matmulPrecision
  }

  /** The programs of a choice. */
  stages(choice: MemoryChoice): DecoderStages {
    const key = programKey(choice)
    const known = this.#stages.get(key) ?? this.#prepared.stages(choice)
    this.#stages.set(key, known)
    return known
  }

  /** What memory may be spent on, the fastest first; nothing where the method has no such form. */
  choices(place: Place, { microBatches }: Pick<Workload, 'microBatches'>): readonly MemoryChoice[] {
    const streamable = canStream(this.#prepared)
    const matmulPrecision = this.#matmulPrecision
    const work = { microBatches, headRows: headRowsOf(this.#prepared.config), matmulPrecision }
    return memoryChoices(place === 'keep' ? 'keep' : 'recompute', streamable, work).filter(
      ({ streamed }) => (streamed !== undefined) === (place === 'streamed'),
    )
  }

  items(workload: Workload, choice: MemoryChoice): readonly MemoryItem[] {
    return memoryItems(this.#prepared, workload, choice, this.stages(choice))
  }

  bytes(workload: Workload, choice: MemoryChoice): number {
    return this.items(workload, choice).reduce((total, { bytes }) => total + bytes, 0)
  }
}

/** A micro-batch: examples, and tokens of each. */
export interface Extent {
  readonly batch: number
  readonly length: number
}

/** Beyond these nobody asks. */
const [mostBatch, mostLength] = [4096, 2 ** 20]

/**
 * The largest micro-batch that `fits`: as many examples of `length` tokens as there is room for; where there is none for one, its longest
 * beginning. Undefined where not even 16 tokens fit.
 */
export function largestExtent(
  length: number,
  { fits, positions }: { readonly fits: (extent: Extent) => boolean; readonly positions: number },
): Extent | undefined {
  const own = Math.min(length, positions, mostLength)
  const batch = largest(mostBatch, (n) => fits({ batch: n, length: own }))
  if (batch > 0) return { batch, length: own }
  const shorter = largest(Math.floor(own / 16), (n) => fits({ batch: 1, length: 16 * n }))
  return shorter > 0 ? { batch: 1, length: 16 * shorter } : undefined
}

/** The largest number up to `most` that `fits`, where all smaller ones do; 0 if there is none. */
function largest(most: number, fits: (n: number) => boolean): number {
  let [low, high] = [0, 1]
  while (high <= most && fits(high)) [low, high] = [high, 2 * high]
  high = Math.min(high, most + 1)
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (fits(middle)) low = middle
    else high = middle
  }
  return low
}
