import type { Input, Output, SafeOutput } from '../terminal/output.ts'

/** What asks a command to end early: a signal, or a stream that can no longer be written. */
export interface Interruption {
  /** The exit code of a command that ends for it. */
  readonly code: number
  /** Whether somebody asked, who may ask again because it takes too long. */
  readonly byHand: boolean
}

/** The outside world as the command line sees it. */
export interface Io {
  readonly stdin: Input
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
