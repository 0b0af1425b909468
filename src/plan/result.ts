import type { MemoryItem } from '../session/memory-items.ts'
import type { ArtifactFile } from './artifact.ts'
import type { Extent } from './memory.ts'
import type { Place, PlanMethod } from './methods.ts'
import type { Prices } from './prices.ts'

/** A way to train a model, and what it takes. */
export interface PlannedVariant {
  readonly method: PlanMethod
  /** Where what the backward pass reads comes from; `streamed`: computed again, with the blocks on disk. */
  readonly activations: Place
  readonly trainableParameters: number
  /** The most bytes at once, and the parts that they are the sum of. */
  readonly memory: { readonly expected: number; readonly items: readonly MemoryItem[] }
  /** Whether that is within the memory given. */
  readonly fits: boolean
  /** The largest micro-batch that is, at the length of the longest example; undefined where none is. */
  readonly largest: Extent | undefined
  /** The weights that it leaves, to the byte. */
  readonly artifact: { readonly bytes: number; readonly files: readonly ArtifactFile[] }
  /** Of an optimizer step, and of all; undefined where nothing was measured or given. */
  readonly time?: { readonly stepSeconds: number; readonly seconds?: number | undefined } | undefined
  readonly cost?:
    | { readonly amount: number; readonly currency: string; readonly perHour: number; readonly machine?: string }
    | undefined
}

export interface PlanResult {
  /** As it was named. */
  readonly model: string
  readonly modelType: string
  /** Weights of the model as it is. */
  readonly parameters: number
  /** What is planned for: `gpu` figures are estimates by `formula`. */
  readonly machine: {
    readonly kind: 'ram' | 'gpu'
    readonly bytes: number
    /** Whether that was given, or is what a run may take here. */
    readonly given: boolean
    readonly formula?: string | undefined
  }
  readonly work: {
    readonly steps: number | undefined
    readonly examples: number | undefined
    readonly tokens: number | undefined
    /** Tokens of the longest example; `maxLength` where no data was read. */
    readonly longest: number
    readonly batch: number
    readonly accumulation: number
  }
  readonly variants: readonly PlannedVariant[]
  /** Methods that this model does not allow. */
  readonly refused: readonly { readonly method: PlanMethod; readonly why: string }[]
  readonly recommendation: {
    /** Undefined where nothing fits. */
    readonly method: PlanMethod | undefined
    readonly activations: Place | undefined
    readonly reasons: readonly string[]
  }
  readonly prices?: Pick<Prices, 'date' | 'source'> | undefined
}
