import { expect } from 'vitest'
import { LowrankError } from '../../util/errors.ts'
import { placeText, readRecords } from './index.ts'

/** What a file holds, a record or `PLACE: error` each. */
export async function recordsOf(path: string): Promise<unknown[]> {
  const records: unknown[] = []
  for await (const entry of readRecords(path)) {
    records.push('error' in entry ? `${placeText(entry.place)}: ${entry.error}` : entry.value)
  }
  return records
}

/** Why a file is refused, and what to do. */
export async function refusalOf(path: string): Promise<string> {
  const error: unknown = await recordsOf(path).catch((thrown: unknown) => thrown)
  if (!(error instanceof LowrankError)) throw new Error('not refused', { cause: error })
  expect(error.code).toBe('data')
  return `${error.message} | ${error.hint ?? ''}`
}
