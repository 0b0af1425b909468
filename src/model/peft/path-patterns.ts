import { type Context, createContext, Script } from 'node:vm'
import { type ErrorCode, LowrankError } from '../../util/errors.ts'

/* Where in a path an expression has to match; each is what PEFT wraps around it. */
export const wholly = (body: string): string => `^(?:${body})$`
export const atTheEnd = (body: string): string => `^(?:.*\\.)?(?:${body})$`
export const anySegment = (body: string): string => `^(?:.*\\.)?(?:${body})(?:\\.|$)`
export const anyIndex = (): string => '^.*?\\.[^.]*\\.(?<idx>\\d+)\\.'
export const indexAfter = (body: string): string => `^(?:.*?\\.)?(?:${body})\\.(?<idx>\\d+)\\.`

/**
 * The paths of modules that a Python regular expression matches, each with its group `idx`. Patterns come from files of others, and
 * one that backtracks without end would hang the process: they run under a time limit.
 */
export function matching(
  key: string,
  pattern: string,
  place: (body: string) => string,
  paths: readonly string[],
  code: ErrorCode,
): Map<string, string> {
  try {
    const { body, flags } = fromPython(pattern)
    sandbox ??= createContext({})
    Object.assign(sandbox, { body: place(body), flags, paths: JSON.stringify(paths) })
    return new Map(JSON.parse(matcher.runInContext(sandbox, { timeout: timeLimit }) as string) as [string, string][])
  } catch (cause) {
    // An error of another context is no instance of this one's Error.
    const { message } = cause as { message: string }
    throw new LowrankError(code, `${key}: ${JSON.stringify(pattern)} cannot be used (${message})`, { cause })
  }
}

/** Milliseconds for one expression and all paths; a sound one takes less than one. */
const timeLimit = 1000

let sandbox: Context | undefined

const matcher = new Script(`
  {
  const expression = new RegExp(body, flags)
  const matches = JSON.parse(paths).map((path) => [path, expression.exec(path)]).filter(([, match]) => match)
  JSON.stringify(matches.map(([path, match]) => [path, match.groups?.idx ?? '']))
}`)

/** Python and JavaScript spell flags at the start, named groups, absolute anchors and open counts differently. */
function fromPython(pattern: string): { body: string; flags: string } {
  const flags = /^\(\?([ims]+)\)/.exec(pattern)
  const body = pattern
    .slice(flags?.[0].length ?? 0)
    .replace(/\\[\s\S]|\(\?P<|\(\?P=(\w+)\)|\{,(?=\d)/g, (part, name: string | undefined) =>
      name === undefined ? (respelled[part] ?? part) : `\\k<${name}>`,
    )
  return { body, flags: [...new Set(flags?.[1] ?? '')].join('') }
}

const respelled: Readonly<Record<string, string>> = { '(?P<': '(?<', '{,': '{0,', '\\A': '^', '\\Z': '$' }
