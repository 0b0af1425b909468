import { LowrankError } from '../util/errors.ts'
import { unicodeProblem } from '../util/unicode.ts'
import { closest } from './names.ts'
import { isOptions, show } from './show.ts'

/** What the functions of the API take beside options: checked here, since JavaScript callers have no compiler to do it. */

/** @throws LowrankError `config` where an argument, by its name, is no text or, unless `empty` is true, an empty one. */
export function checkText(name: string, value: unknown, { empty = false }: { readonly empty?: boolean } = {}): void {
  const wanted = empty ? 'a string' : 'a non-empty string'
  if (typeof value !== 'string' || (value === '' && !empty))
    throw refused(`${name}: found ${show(value)}, expected ${wanted}`)
  const problem = unicodeProblem(value)
  if (problem !== undefined) throw refused(`${name}: ${problem}`)
}

const callbacks = {
  signal: { fits: isSignal, accepts: 'an AbortSignal' },
  configFile: { fits: (value: unknown) => typeof value === 'string', accepts: 'a path' },
  onStatus: { fits: (value: unknown) => typeof value === 'function', accepts: 'a function' },
} as const

/** @throws LowrankError `config` where `{ signal, configFile, onStatus }` has other keys, or other values. */
export function checkCall(options: unknown, keys: readonly (keyof typeof callbacks)[]): void {
  if (!isOptions(options)) {
    throw refused(`call options: found ${show(options)}, expected an object with ${keys.join(' and ')}`)
  }
  for (const [name, value] of Object.entries(options)) {
    const key = keys.find((one) => one === name)
    if (key === undefined) {
      const near = closest(name, keys)
      throw refused(`${name}: unknown call option.${near === undefined ? '' : ` Did you mean "${near}"?`}`)
    }
    const { fits, accepts } = callbacks[key]
    if (value !== undefined && !fits(value)) throw refused(`${name}: found ${show(value)}, expected ${accepts}`)
  }
}

/** Of any realm, and any implementation that behaves as one. */
function isSignal(value: unknown): boolean {
  return (
    typeof value === 'object' &&
    value !== null &&
    'aborted' in value &&
    'addEventListener' in value &&
    typeof value.addEventListener === 'function'
  )
}

function refused(message: string): LowrankError {
  return new LowrankError('config', `configuration: ${message}`)
}
