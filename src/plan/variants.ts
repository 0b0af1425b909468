import type { MatmulPrecision, MemoryChoice } from '../config/index.ts'
import type { PreparedDecoder } from '../session/decoder.ts'
import type { MemoryItem, Workload } from '../session/memory-items.ts'
import { elements } from '../util/shape.ts'
import { artifactOf } from './artifact.ts'
import { gpuItems } from './gpu.ts'
import { type Extent, largestExtent, MemoryModel } from './memory.ts'
import { configOf, type PlanMethod, places } from './methods.ts'
import type { PlannedVariant } from './result.ts'
import type { StepTimer } from './time.ts'
import type { PlannedWork, RunConfig } from './workload.ts'

/** A variant before it is known how long it takes; `choice`: what training would spend memory on, on this machine. */
interface Draft {
  readonly variant: PlannedVariant
  readonly choice: MemoryChoice
}

interface MethodOptions {
  readonly decoder: PreparedDecoder
  readonly config: RunConfig
  readonly work: PlannedWork
  /** Most bytes there are, and of what. */
  readonly budget: number
  readonly kind: 'ram' | 'gpu'
  readonly matmulPrecision: MatmulPrecision
}

/** One method in all its forms. */
export class MethodPlan {
  readonly variants: readonly PlannedVariant[]
  readonly #drafts: readonly Draft[]
  readonly #memory: MemoryModel
  readonly #work: PlannedWork
  readonly #config: RunConfig

  constructor(method: PlanMethod, { decoder, config, work, budget, kind, matmulPrecision }: MethodOptions) {
    const own = configOf(config, method)
    const memory = new MemoryModel(decoder, matmulPrecision)
    const { positions, trained } = factsOf(decoder, memory, work.workload(own))
    const artifact = artifactOf(decoder, trained, own)
    const shared = {
      method,
      trainableParameters: trained.reduce((total, { shape }) => total + elements(shape), 0),
      artifact: { bytes: artifact.reduce((total, { bytes }) => total + bytes, 0), files: artifact },
    }
    this.#drafts = places.flatMap((activations): Draft[] => {
      const choices = memory.choices(activations, work.workload(own))
      const least = choices.at(-1)
      if (least === undefined || (kind === 'gpu' && activations === 'streamed')) return []
      const itemsOf = (extent: Extent | undefined, choice: MemoryChoice): readonly MemoryItem[] => {
        const workload = work.workload(own, extent)
        return kind === 'ram'
          ? memory.items(workload, choice)
          : gpuItems(decoder, memory.stages(choice), workload, { checkpoints: activations === 'recompute' })
      }
      const choice = choices.find((one) => sum(itemsOf(undefined, one)) <= budget) ?? least
      const items = itemsOf(undefined, choice)
      const fits = (extent: Extent): boolean => sum(itemsOf(extent, least)) <= budget
      const variant: PlannedVariant = {
        ...shared,
        activations,
        memory: { expected: sum(items), items },
        fits: sum(items) <= budget,
        largest: largestExtent(work.longest, { fits, positions }),
      }
      return [{ variant, choice }]
    })
    this.variants = this.#drafts.map(({ variant }) => variant)
    this.#memory = memory
    this.#work = work
    this.#config = own
  }

  /** The same with what `timer` finds of their steps. */
  async timed(timer: StepTimer): Promise<PlannedVariant[]> {
    const found: PlannedVariant[] = []
    const { sample } = this.#work
    for (const { variant, choice } of this.#drafts) {
      const run = { sample, config: this.#config }
      const stepSeconds = await timer.stepSeconds(this.#memory.stages(choice), choice, run)
      found.push({ ...variant, time: { stepSeconds } })
    }
    return found
  }
}

function sum(items: readonly MemoryItem[]): number {
  return items.reduce((total, { bytes }) => total + bytes, 0)
}

function factsOf(decoder: PreparedDecoder, memory: MemoryModel, workload: Workload) {
  const [choice] = memory.choices('recompute', workload)
  const wanted = choice === undefined ? [] : decoder.wanted(memory.stages(choice))
  return {
    positions: decoder.config.maxPositionEmbeddings,
    trained: wanted.filter(({ trainable }) => trainable),
  }
}
