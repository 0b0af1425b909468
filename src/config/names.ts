import leven from 'leven'
import { ALIASES, HINTS, MEANT, VALUES } from './foreign.ts'
import { snakeCase, type Option } from './options.ts'

/** The nearest of the candidates, if any is near enough to be what was meant. */
export function closest(name: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined
  let bestDistance = Infinity
  const wanted = name.toLowerCase()
  for (const candidate of candidates) {
    const other = candidate.toLowerCase()
    // A third of the letters may differ: "lernRate" is near "learningRate". So is a name cut short.
    const cut = wanted.length >= 3 && other.startsWith(wanted)
    const distance = cut ? 0 : leven(wanted, other)
    const allowed = Math.ceil(Math.max(wanted.length, other.length) / 3)
    if (distance < bestDistance && distance <= allowed && distance < Math.min(wanted.length, other.length)) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

/** The value as Lowrank calls it, where it is one that other tools use. */
export function resolveValue(key: string, value: unknown): unknown {
  const values = Object.hasOwn(VALUES, key) ? VALUES[key] : undefined
  return values !== undefined && typeof value === 'string' && Object.hasOwn(values, value) ? values[value] : value
}

/** The option and value that are meant, where another tool has one option for what is two here. */
export function resolveSwitch(
  options: readonly Option[],
  option: Option,
  value: unknown,
): { readonly option: Option; readonly value: unknown } {
  // transformers' resume_from_checkpoint is a path, or true for the latest.
  const latest = option.key === 'resumeFrom' && /^(true|false)$/i.test(String(value))
  const resume = latest ? options.find(({ key }) => key === 'resume') : undefined
  return resume === undefined ? { option, value } : { option: resume, value: /^true$/i.test(String(value)) }
}

export type Spelling = 'key' | 'snake' | 'flag'

/** The option a name means (camelCase, snake_case, kebab-case or an alias), or what is wrong with the name. */
export function resolveName(
  options: readonly Option[],
  name: string,
  spelling: Spelling,
): { readonly option: Option } | { readonly problem: string } {
  const snake = name.replaceAll('-', '_')
  const key = Object.hasOwn(ALIASES, snake) ? ALIASES[snake] : undefined
  const option = options.find((one) => one.key === name || one.snake === snake || one.key === key)
  if (option !== undefined) return { option }
  const plain = snakeCase(snake)
  if (Object.hasOwn(HINTS, plain)) return { problem: `unknown option. ${HINTS[plain]}` }
  // Suggested as the user spells: somebody who writes snake_case is offered snake_case.
  const form = spelling === 'key' && name.includes('_') ? 'snake' : spelling
  const meant = Object.hasOwn(MEANT, plain) ? options.find((one) => one.key === MEANT[plain]) : undefined
  const near =
    meant?.[form] ??
    closest(
      form === 'flag' ? name.replaceAll('_', '-') : name,
      options.map((one) => one[form]),
    )
  const suggestion = near === undefined ? '' : ` Did you mean "${form === 'flag' ? '--' : ''}${near}"?`
  return { problem: `unknown option.${suggestion}` }
}
