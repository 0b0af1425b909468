import { stream, uniform } from '../../src/util/random.ts'

/** A stream of numbers in [0, 1). */
export type Random = () => number

/** Lists of alternatives, by the name that stands for them in a template. */
export type Grammar = Readonly<Record<string, readonly string[]>>

/** Values that stay the same throughout one text (a person's name, an order number). */
export type Facts = Readonly<Record<string, string>>

/** The numbers of a purpose under a seed: the same on every machine. */
export function seededRandom(seed: number, purpose: string): Random {
  let values: Float64Array = new Float64Array(0)
  let next = 0
  let chunk = 0
  return () => {
    if (next === values.length) {
      values = uniform(stream(seed, purpose, chunk++), 1024)
      next = 0
    }
    return values[next++] ?? 0
  }
}

/** One element, each equally likely. */
export function pick<T>(random: Random, list: readonly T[]): T {
  const element = list[Math.floor(random() * list.length)]
  if (element === undefined) throw new Error('pick: the list is empty')
  return element
}

/** A new list of the same elements in random order (Fisher-Yates). */
export function shuffled<T>(random: Random, list: readonly T[]): T[] {
  const result = list.slice()
  for (let last = result.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1))
    const kept = result[last] as T
    result[last] = result[other] as T
    result[other] = kept
  }
  return result
}

/**
 * Text from a template: `[a|b|]` is one of its alternatives, `{name}` a fact or, where no fact has that name, a new draw
 * from the grammar's list. Both nest. "a" becomes "an" before a vowel, and sentences start with a capital.
 */
export function expand(template: string, grammar: Grammar, facts: Facts, random: Random): string {
  const text = substitute(template, grammar, facts, random)
  return text
    .replaceAll(/\b([Aa]) (?=[aeiou])/g, '$1n ')
    .replaceAll(/(^|[.!?]\s+|\n)([a-z])/g, (_, before: string, letter: string) => before + letter.toUpperCase())
}

function substitute(template: string, grammar: Grammar, facts: Facts, random: Random): string {
  let text = template
  // Innermost brackets first, so that a choice can hold choices.
  for (let inner = /\[([^[\]]*)\]/.exec(text); inner; inner = /\[([^[\]]*)\]/.exec(text)) {
    const chosen = pick(random, (inner[1] ?? '').split('|'))
    text = text.slice(0, inner.index) + chosen + text.slice(inner.index + inner[0].length)
  }
  return text.replaceAll(/\{(\w+)\}/g, (_, name: string) => {
    const fact = facts[name]
    if (fact !== undefined) return fact
    const list = grammar[name]
    if (!list) throw new Error(`template: {${name}} is neither a fact nor a rule, in: ${template}`)
    return substitute(pick(random, list), grammar, facts, random)
  })
}
