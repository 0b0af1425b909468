import { readFile, stat } from 'node:fs/promises'
import { type ErrorCode, LowrankError } from '../util/errors.ts'

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
  let text: string
  try {
    const { size } = await stat(path)
    if (size > maxBytes) throw new LowrankError(code, `${path}: ${size} bytes, at most ${maxBytes} are accepted`)
    text = await readFile(path, 'utf8')
  } catch (cause) {
    if (cause instanceof LowrankError) throw cause
    throw new LowrankError(code, `cannot read ${path}: ${messageOf(cause)}`, { cause, hint })
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new LowrankError(code, `${path}: not valid JSON (${messageOf(cause)})`, { cause })
  }
  if (!isJsonObject(value)) throw new LowrankError(code, `${path}: a JSON object is expected`)
  return value
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
