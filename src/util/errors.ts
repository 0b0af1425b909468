/**
 * What went wrong, by who can correct it. All codes but the last six mean that the input was
 * refused: the command line exits with 2 for those.
 */
export type ErrorCode =
  | 'usage'
  | 'config'
  | 'data'
  | 'model'
  | 'adapter'
  | 'checkpoint'
  | 'memory'
  | 'io'
  | 'diverged'
  | 'cancelled'
  /** A check of `lowrank selftest` failed. */
  | 'selftest'
  /** `lowrank data check` has found something. */
  | 'findings'
  | 'internal'

/**
 * The one error class. The message reads: what was asked, what was found, where (file, line, tensor); the hint says what
 * to do about it. A message that starts with `internal:` marks a bug of Lowrank itself.
 */
export class LowrankError extends Error {
  override readonly name = 'LowrankError'
  readonly code: ErrorCode
  readonly hint: string | undefined

  constructor(code: ErrorCode, message: string, options: { hint?: string | undefined; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.hint = options.hint
  }
}

/** A broken promise of Lowrank's own code, never the user's fault. */
export function internalError(message: string): LowrankError {
  return new LowrankError('internal', `internal: ${message}`, { hint: 'This is a bug in lowrank; please report it.' })
}

/** Whether the user's input, and not the machine or Lowrank, has to change (exit code 2). */
export function isInputError(error: unknown): error is LowrankError {
  const input: readonly ErrorCode[] = ['usage', 'config', 'data', 'model', 'adapter', 'checkpoint']
  return error instanceof LowrankError && input.includes(error.code)
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
