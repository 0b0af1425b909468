import { checkText } from '../config/index.ts'
import { LowrankError } from '../util/errors.ts'

/** What comes before the options, on the command line and in a call: `lowrank report RUN`, `writeReport(run)`. */
export interface Argument<K extends string = string, V = unknown> {
  /** What the configuration and messages of the API call it. */
  readonly key: K
  /** As help and messages of the command line call it: `RUN`. */
  readonly name: string
  /** Words that the command line needs at least. */
  readonly least: number
  /** Whether it takes any number of words. */
  readonly list: boolean
  /** @throws LowrankError `config`, `usage`: what a call has given is none. */
  check(value: unknown): V
}

/** An argument of one word. */
export function word<K extends string>(
  key: K,
  name: string,
  { optional = false }: { readonly optional?: boolean } = {},
): Argument<K, string> {
  return {
    key,
    name,
    least: optional ? 0 : 1,
    list: false,
    check: (value) => {
      checkText(key, value)
      return value
    },
  }
}

/** An argument of several words; `accepts`: what a call has to give, as `a list of output folders`. */
export function words<K extends string>(
  key: K,
  name: string,
  { least, accepts }: { readonly least: number; readonly accepts: string },
): Argument<K, readonly string[]> {
  return {
    key,
    name,
    least,
    list: true,
    check: (value) => {
      if (!Array.isArray(value)) throw new LowrankError('usage', `${key}: ${accepts} is expected`)
      return value.map((one: unknown, index) => {
        checkText(`${key}[${index}]`, one)
        return one
      })
    },
  }
}
