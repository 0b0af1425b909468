import { print, type Program } from '../graph/program.ts'

/** Programs by their text, so that equal ones are one object, compiled once. */
export function sharing(): (candidate: Program) => Program {
  const known = new Map<string, Program>()
  return (candidate) => {
    const text = print(candidate)
    const first = known.get(text)
    if (first === undefined) known.set(text, candidate)
    return first ?? candidate
  }
}
