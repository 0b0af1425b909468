import type {
  EvalConfigInput,
  QuantizeConfigInput,
  ReplayOptionsInput,
  SelftestConfigInput,
  Source,
  TrainConfigInput,
} from '../config/index.ts'
import type { QuantizeResult } from '../tasks/quantize.ts'
import type { ReplayResult } from '../tasks/replay.ts'
import type { SelftestResult } from '../tasks/selftest/selftest.ts'
import type { EvaluationResult, TrainEvent } from '../train/events.ts'
import { printable } from './format.ts'

/** A stream that text goes to, and what is known of its terminal. */
export interface Output {
  write(text: string): unknown
  readonly isTTY?: boolean
  readonly columns?: number
}

/** A stream as commands write to it. */
export interface SafeOutput extends Output {
  /** The stream itself, for what draws with control sequences of its own. */
  readonly raw: Output
}

/** Lets no control character through to a terminal, wherever in a message it comes from. */
export function safe(raw: Output): SafeOutput {
  return {
    raw,
    write: (text) => raw.write(printable(text)),
    get isTTY() {
      return raw.isTTY === true
    },
    get columns() {
      return raw.columns ?? 0
    },
  }
}

/** What asks a command to end early: a signal, or a stream that can no longer be written. */
export interface Interruption {
  /** The exit code of a command that ends for it. */
  readonly code: number
  /** Whether somebody asked, who may ask again because it takes too long. */
  readonly byHand: boolean
}

/** The outside world as the command line sees it. */
export interface Io {
  /** Results only. */
  readonly stdout: Output
  /** Progress and errors. */
  readonly stderr: Output
  readonly env: Readonly<Record<string, string | undefined>>
  /** Calls back for whatever asks the command to end early; returns a function that ends this. */
  onInterrupt(listener: (interruption: Interruption) => void): () => void
  /** Ends the process at once. */
  exit(code: number): void
}

/** The same, as commands see it. */
export interface SafeIo extends Io {
  readonly stdout: SafeOutput
  readonly stderr: SafeOutput
}

/** What the commands need of the library. */
export interface Api {
  readonly finetune: (
    config: TrainConfigInput,
    options?: { signal?: AbortSignal; configFile?: string | undefined },
  ) => AsyncGenerator<TrainEvent>
  readonly evaluate: (
    config: EvalConfigInput,
    options?: { signal?: AbortSignal; onStatus?: (message: string) => void },
  ) => Promise<EvaluationResult>
  readonly quantize: (config: QuantizeConfigInput, options?: { signal?: AbortSignal }) => Promise<QuantizeResult>
  readonly replay: (
    run: string,
    options: ReplayOptionsInput,
    callOptions?: { signal?: AbortSignal; onStatus?: (message: string) => void },
  ) => Promise<ReplayResult>
  readonly selftest: (
    config: SelftestConfigInput,
    options?: { signal?: AbortSignal; onStatus?: (message: string) => void },
  ) => Promise<SelftestResult>
}

/** A command's invocation: its options from file and flags, not yet checked. */
export interface Invocation {
  readonly sources: readonly Source[]
  /** The file that options are from. */
  readonly configFile: string | undefined
  /** Arguments that are no flags, as the command declares them. */
  readonly positionals: readonly string[]
  readonly json: boolean
  readonly io: SafeIo
  readonly signal: AbortSignal
  /** Loaded on demand: help and usage errors need no runtime. */
  readonly loadApi: () => Promise<Api>
}

/** Columns of a terminal, or 100 for files and pipes. */
export function widthOf(output: Output): number {
  return Math.max(40, output.isTTY === true && output.columns ? output.columns : 100)
}
