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

/** Columns of a terminal, or 100 for files and pipes. */
export function widthOf(output: Output): number {
  return Math.max(40, output.isTTY === true && output.columns ? output.columns : 100)
}

/** A stream that text comes from. */
export type Input = NodeJS.ReadableStream & { readonly isTTY?: boolean }
