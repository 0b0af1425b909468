import type { MemoryChoice } from '../config/index.ts'
import type { Confusion } from '../metrics/index.ts'
import type { DatasetSummary } from '../text/dataset.ts'

export type { Confusion, DatasetSummary }

/** Loss in nats per label token, over a whole dataset. */
export interface EvalResult {
  readonly loss: number
  /** exp(loss). */
  readonly perplexity: number
  /** Share of label tokens that greedy decoding gets right, 0 to 1. */
  readonly tokenAccuracy: number
  readonly labelTokens: number
  readonly examples: number
  /** What metrics of answers came to, by their names (`metricValues`), where some were asked for. */
  readonly metrics?: Readonly<Record<string, number>>
  /** Of a classification: how often each label was taken for which. */
  readonly confusion?: Confusion
}

/** The best evaluation of a run. */
export interface BestEvaluation {
  readonly step: number
  readonly loss: number
  /** By what it is the best, where that is not the loss (`metricForBestModel`). */
  readonly metric?: { readonly name: string; readonly value: number } | undefined
}

/** An evaluation of a model to compare with. */
export interface Baseline extends EvalResult {
  /** Examples that each prompt began with; 0: none. */
  readonly shots: number
}

/** An evaluation on a file, and what became of its lines. */
export interface EvaluationResult extends EvalResult {
  readonly data: DatasetSummary
  /** The base model without the adapter, and with examples in its prompts, where these were asked for. */
  readonly baselines?: readonly Baseline[]
}

/** The event of a type, or of several. */
export type EventOf<T extends TrainEvent['type']> = Extract<TrainEvent, { type: T }>

/** Everything a training run says, in order. `done` is last; a cancelled run ends in an error of code `cancelled`. */
export type TrainEvent =
  | { readonly type: 'status'; readonly message: string }
  | { readonly type: 'warning'; readonly message: string }
  | { readonly type: 'data'; readonly train: DatasetSummary; readonly valid: DatasetSummary | undefined }
  | ({
      readonly type: 'plan'
      readonly modelType: string
      readonly parameters: number
      readonly trainableParameters: number
      readonly steps: number
      readonly threads: number
      /** How the base is quantized, in words; undefined where it is not. */
      readonly quantization: string | undefined
      /** Why products are computed in what `matmulPrecision` says. */
      readonly products: string
      readonly memory: {
        /** Highest resident memory expected, bytes, and what it is made of. */
        readonly expected: number
        readonly items: readonly { readonly what: string; readonly bytes: number }[]
        readonly bound: number | undefined
        /** What would take less, in words. */
        readonly smaller: readonly string[]
      }
    } & MemoryChoice)
  | {
      /** One optimizer step. */
      readonly type: 'step'
      readonly step: number
      readonly steps: number
      readonly epoch: number
      /** Mean over the label tokens of this step. */
      readonly loss: number
      readonly learningRate: number
      /** Before clipping. */
      readonly gradNorm: number
      /** Positions computed, padding included; those that are no padding; those that predict a label. */
      readonly tokens: number
      readonly realTokens: number
      readonly labelTokens: number
      /** The share of padding among the positions computed, 0 to 1. */
      readonly paddingShare: number
      readonly seconds: number
      readonly tokensPerSecond: number
      /** Bytes of blocks read from disk for it; 0 where they stay in memory. */
      readonly bytesRead: number
      /** Resident set of the process, bytes. */
      readonly memory: number
      readonly secondsLeft: number
    }
  | {
      /** Every `loggingSteps` steps. */
      readonly type: 'log'
      readonly step: number
      readonly epoch: number
      /** Mean of the step losses since the last log. */
      readonly loss: number
      readonly learningRate: number
      readonly gradNorm: number
    }
  | ({
      readonly type: 'eval'
      readonly step: number
      readonly epoch: number
      readonly seconds: number
      /** Whether this is the best so far, by `metricForBestModel`, else the loss. */
      readonly best: boolean
    } & EvalResult)
  | {
      /** A loss or gradient norm far outside its recent range, or no number (`nan`). Reported once while it stays high. */
      readonly type: 'spike'
      readonly step: number
      readonly epoch: number
      readonly kind: 'loss' | 'gradNorm' | 'nan'
      /** What was out of range; as JSON, NaN and Infinity are null. */
      readonly value: number
      /** Of the recent steps: their median, and the most a step like this one was expected to have; undefined for `nan`. */
      readonly expected: { readonly median: number; readonly limit: number } | undefined
      readonly loss: number
      readonly gradNorm: number
      /** Where the examples of the step come from: lines of the training file, ascending. */
      readonly lines: readonly number[]
      /** Whether the update was applied, left out, or ended the run without it. */
      readonly action: 'apply' | 'skip' | 'stop'
      /** What to do about it, in words. */
      readonly remedy: string
    }
  | {
      /** The evaluation loss rises while the training loss falls; reported once. */
      readonly type: 'overfitting'
      readonly step: number
      readonly epoch: number
      readonly evalLoss: number
      /** Mean of the step losses since the evaluation before. */
      readonly trainLoss: number
      /** The same figures where the evaluation loss was lowest. */
      readonly best: {
        readonly step: number
        readonly epoch: number
        readonly evalLoss: number
        readonly trainLoss: number
      }
      readonly remedy: string
    }
  | { readonly type: 'save'; readonly step: number; readonly path: string }
  /** The run goes on after `step`, from the checkpoint at `path`. Comes before the plan. */
  | { readonly type: 'resume'; readonly step: number; readonly path: string }
  | {
      readonly type: 'sample'
      readonly when: 'before' | 'after'
      readonly prompt: string
      readonly completion: string
      readonly expected: string
    }
  | {
      readonly type: 'done'
      readonly steps: number
      /** Mean of all step losses. */
      readonly trainLoss: number
      /** Of all steps, as in `step`. */
      readonly tokens: number
      readonly realTokens: number
      readonly labelTokens: number
      readonly paddingShare: number
      readonly outputDir: string
      readonly seconds: number
      /** Highest resident set of the process, bytes. */
      readonly peakMemory: number
      readonly best: BestEvaluation | undefined
      /** Set where evaluations no longer got better (`earlyStoppingPatience`): the last step, and why. */
      readonly stoppedEarly?: { readonly step: number; readonly reason: string } | undefined
    }
