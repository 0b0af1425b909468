import { isJsonObject, type JsonObject } from '../formats/json.ts'
import { unicodeProblem } from '../util/unicode.ts'

/** The texts of an example. */
export interface Row {
  readonly prompt: string
  readonly completion: string
}

/** What is wrong with a row; the hint is for files of which every row is so. */
interface RowProblem {
  readonly problem: string
  readonly hint?: string
}

/** Reads a row: an object with the texts `prompt` and `completion`. Further keys are left alone. */
export function readRow(value: unknown): Row | RowProblem {
  if (!isJsonObject(value)) return { problem: `${kindOf(value)}, not a JSON object`, hint: rename }
  const { prompt, completion } = value
  if (prompt === undefined || completion === undefined) return missingText(value)
  if (typeof prompt !== 'string') return notText('prompt', prompt)
  if (typeof completion !== 'string') return notText('completion', completion)
  for (const [key, text] of [['prompt', prompt] as const, ['completion', completion] as const]) {
    const problem = unicodeProblem(text)
    if (problem !== undefined) return { problem: `"${key}" is ${problem}` }
  }
  return { prompt, completion }
}

const rename = 'Each line must be a JSON object with the texts "prompt" and "completion".'
const answers =
  'Chat rows are not read: make the conversation up to an answer the text "prompt", and the answer the text "completion".'

/** Rows of other trainers. */
const shapes = [
  { key: 'messages', what: 'a chat row', hint: answers },
  { key: 'conversations', what: 'a chat row', hint: answers },
  {
    key: 'instruction',
    what: 'an Alpaca row',
    hint: 'Join "instruction" and "input" to the text "prompt", and name the answer "completion".',
  },
  {
    key: 'text',
    what: 'a row of plain text',
    hint: 'Name what is to be learned "completion", and what is only read "prompt" (it may be empty).',
  },
] as const

function missingText(row: JsonObject): RowProblem {
  const missing = row['prompt'] === undefined ? 'prompt' : 'completion'
  const known = shapes.find(({ key }) => Object.hasOwn(row, key))
  const what = known === undefined ? '' : ` (${known.what})`
  return { problem: `"${missing}" is missing; found ${keysOf(row)}${what}`, hint: known?.hint ?? rename }
}

function notText(key: string, value: unknown): RowProblem {
  const problem = `"${key}" is ${kindOf(value)}, not text`
  return isChat(value) ? { problem, hint: answers } : { problem }
}

function kindOf(value: unknown): string {
  if (value === null) return 'null'
  if (typeof value === 'string') return 'text'
  if (Array.isArray(value)) return isChat(value) ? 'chat messages' : 'a list'
  return isJsonObject(value) ? 'an object' : `the ${typeof value} ${JSON.stringify(value)}`
}

function isChat(value: unknown): boolean {
  return Array.isArray(value) && value.some((one) => isJsonObject(one) && 'role' in one)
}

/** The first keys of a row, quoted. */
function keysOf(row: object): string {
  const keys = Object.keys(row)
  if (keys.length === 0) return 'no keys'
  const shown = keys.slice(0, 8).map((key) => JSON.stringify(key.length > 40 ? `${key.slice(0, 37)}...` : key))
  return `${shown.join(', ')}${keys.length > shown.length ? `, ... (${keys.length} keys)` : ''}`
}
