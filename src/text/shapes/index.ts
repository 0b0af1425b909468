import { isJsonObject, type JsonObject } from '../../formats/json.ts'
import { messages } from './messages.ts'
import { alpaca, conversations, pairs, preference, text } from './others.ts'
import { keysOf, kindOf, type Problem, type Sample, type Shape, type ShapeName } from './sample.ts'

export { type ChatSample, isProblem, type Problem, type Sample, type ShapeName, shapeNames } from './sample.ts'

/** The forms that records have, the surest first: what has messages may have a text beside them, and a preference has a prompt. */
export const shapes: readonly Shape[] = [messages, conversations, preference, pairs, alpaca, text]

/** Another name for each column: `{ prompt: 'question' }` reads `prompt` from `question`. */
export type Columns = Readonly<Record<string, string>>

const expected =
  'Each record is an object with "prompt" and "completion", "messages", "conversations", "instruction" and "output", or "text".'

/**
 * Reads the records of a file, which all have one shape: the one that is named, or that of the first record that has one.
 */
export class ShapeReader {
  readonly #columns: readonly (readonly [string, string])[]
  #shape: Shape | undefined

  constructor(name: ShapeName | undefined, columns: Columns = {}) {
    this.#columns = Object.entries(columns)
    this.#shape = name === undefined ? undefined : shapes.find((shape) => shape.name === name)
  }

  /** The shape, once it is known. */
  get name(): ShapeName | undefined {
    return this.#shape?.name
  }

  /** Of the columns that records have, those that they are read from; undefined where that is not known. */
  wanted(columns: readonly string[]): readonly string[] | undefined {
    const taken = this.#columns.map(([, from]) => from)
    const sources = new Map(columns.filter((name) => !taken.includes(name)).map((name) => [name, name]))
    for (const [to, from] of this.#columns) if (columns.includes(from)) sources.set(to, from)
    const shape = this.#shape ?? shapes.find(({ keys }) => keys.some((key) => sources.has(key)))
    const found = shape?.uses.flatMap((key) => sources.get(key) ?? []) ?? []
    return found.length === 0 ? undefined : found
  }

  read(value: unknown): Sample | Problem {
    if (!isJsonObject(value)) return { problem: `${kindOf(value)}, not a JSON object`, hint: expected }
    const missing = this.#columns.find(([, from]) => !Object.hasOwn(value, from))
    if (missing !== undefined) {
      const hint = 'Name columns that the records have: --columns prompt=NAME,completion=NAME.'
      return { problem: `the column "${missing[1]}" is missing; found ${keysOf(value)}`, hint }
    }
    const record = this.#columns.length === 0 ? value : renamed(value, this.#columns)
    const shape = this.#shape ?? shapes.find(({ keys }) => keys.some((key) => Object.hasOwn(record, key)))
    if (shape === undefined) return { problem: `of no known form; found ${keysOf(record)}`, hint: expected }
    const found = shape.read(record)
    if ('kind' in found) this.#shape = shape
    return found
  }
}

/** The record with the columns it is asked for; what took another's name is gone from its own. */
function renamed(record: JsonObject, columns: readonly (readonly [string, string])[]): JsonObject {
  const taken = new Set(columns.map(([, from]) => from))
  const rest = Object.entries(record).filter(([key]) => !taken.has(key))
  return { ...Object.fromEntries(rest), ...Object.fromEntries(columns.map(([to, from]) => [to, record[from]])) }
}
