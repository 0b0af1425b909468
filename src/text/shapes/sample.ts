import type { JsonObject } from '../../formats/json.ts'
import { isJsonObject } from '../../formats/json.ts'
import { unicodeProblem } from '../../util/unicode.ts'
import type { Message } from '../template/template.ts'

/** What a record is to be learned from. */
export type Sample = PairSample | ChatSample | TextSample

/** A text that is read, and one that is learned. */
export interface PairSample {
  readonly kind: 'pair'
  readonly prompt: string
  readonly completion: string
}

/** A conversation, of which the assistant's turns are learned. */
export interface ChatSample {
  readonly kind: 'chat'
  readonly messages: readonly Message[]
  readonly tools?: readonly unknown[] | undefined
  /** Indices of the assistant's messages that are read only. */
  readonly unlearned?: ReadonlySet<number>
}

/** A text of which all is learned. */
export interface TextSample {
  readonly kind: 'text'
  readonly text: string
}

/** What is wrong with a record; the hint is for files of which every record is so. */
export interface Problem {
  readonly problem: string
  readonly hint?: string
}

/** A form that records have. */
export interface Shape {
  readonly name: ShapeName
  /** What its records are, in words. */
  readonly what: string
  /** The keys by which it is known: any of them. */
  readonly keys: readonly string[]
  /** All keys that are read. */
  readonly uses: readonly string[]
  /** Reads a record of it. */
  read(record: JsonObject): Sample | Problem
}

export const shapeNames = ['pairs', 'messages', 'conversations', 'alpaca', 'text', 'preference'] as const
export type ShapeName = (typeof shapeNames)[number]

/** The text of a key, or why it has none. */
export function textOf(record: JsonObject, key: string): string | Problem {
  const value = record[key]
  if (value === undefined) return { problem: `"${key}" is missing; found ${keysOf(record)}` }
  if (typeof value !== 'string') return { problem: `"${key}" is ${kindOf(value)}, not text` }
  const problem = unicodeProblem(value)
  return problem === undefined ? value : { problem: `"${key}" is ${problem}` }
}

export function isProblem(value: unknown): value is Problem {
  return isJsonObject(value) && typeof value['problem'] === 'string'
}

/** What a value is, in words. */
export function kindOf(value: unknown): string {
  if (value === null) return 'null'
  if (typeof value === 'string') return 'text'
  if (Array.isArray(value)) return isChat(value) ? 'chat messages' : 'a list'
  return isJsonObject(value) ? 'an object' : `the ${typeof value} ${JSON.stringify(value)}`
}

function isChat(value: readonly unknown[]): boolean {
  return value.some((one) => isJsonObject(one) && 'role' in one)
}

/** The first keys of a record, quoted. */
export function keysOf(record: object): string {
  const keys = Object.keys(record)
  if (keys.length === 0) return 'no keys'
  const shown = keys.slice(0, 8).map((key) => JSON.stringify(key.length > 40 ? `${key.slice(0, 37)}...` : key))
  return `${shown.join(', ')}${keys.length > shown.length ? `, ... (${keys.length} keys)` : ''}`
}
