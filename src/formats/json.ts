import { type ErrorCode, LowrankError, messageOf } from '../util/errors.ts'
import { readText } from './plain-file.ts'

export type JsonObject = { readonly [key: string]: unknown }

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * Reads a JSON file that must hold an object. Errors, of code `code`, name the file; larger than `maxBytes` is refused. `hint` says what
 * to do where the file cannot be read.
 */
export async function readJsonObject(
  path: string,
  { code, maxBytes = 64 * 2 ** 20, hint }: { code: ErrorCode; maxBytes?: number; hint?: string },
): Promise<JsonObject> {
  const text = await readText(path, { code, maxBytes, hint })
  let value: unknown
  try {
    value = parseJson(text)
  } catch (cause) {
    throw new LowrankError(code, `${path}: not valid JSON (${messageOf(cause)})`, { cause })
  }
  if (!isJsonObject(value)) throw new LowrankError(code, `${path}: a JSON object is expected`)
  return value
}

/** Far more than any file of a model or a run has; what walks a value by calling itself is safe to this depth. */
const deepest = 200

/** The value of JSON of unknown origin: deep nesting, which only its author wants, is an error as other mistakes are. */
export function parseJson(text: string): unknown {
  const value: unknown = JSON.parse(text)
  let level = [value].filter(isContainer)
  for (let depth = 1; level.length > 0; depth++) {
    if (depth > deepest) throw new SyntaxError(`nested more than ${deepest} levels deep`)
    level = level.flatMap((one) => Object.values(one).filter(isContainer))
  }
  return value
}

function isContainer(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}
