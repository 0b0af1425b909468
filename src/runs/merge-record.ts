import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { readJsonObject } from '../formats/json.ts'

/** What a merged model was made of, beside it. */
export const mergeRecordName = 'merge.json'

/** How a base was held that was not quantized. */
export const heldAsStored = 'as it is stored'

const text = z.string().max(4096)

const schema = z.object({
  /** The version of Lowrank. */
  lowrank: text,
  base: z.object({
    name: text,
    /** The commit of one from the hub. */
    revision: text.optional(),
    /** SHA-256 of its files, as `run.json` has it; where an adapter's record asked for it. */
    sha256: text.optional(),
    /** How it was held, in words: quantized bases were expanded before adapters were added. */
    held: text,
  }),
  /** In the order in which they were given. */
  adapters: z
    .array(z.object({ name: text, scale: z.number(), sha256: text }))
    .min(1)
    .max(1000),
  /** As which weights were stored: bf16, ...; auto: as the base stores them. */
  dtype: text,
})

/** What `merge.json` says of a model: it holds adapters, and which. */
export type MergeRecord = Readonly<z.output<typeof schema>>

/** The record beside a model; undefined where there is none, or one of another program. */
export async function readMergeRecord(model: string): Promise<MergeRecord | undefined> {
  const path = join(model, mergeRecordName)
  if (!(await stat(path).catch(() => undefined))?.isFile()) return undefined
  const json = await readJsonObject(path, { code: 'model' }).catch(() => undefined)
  const parsed = schema.safeParse(json)
  return parsed.success ? parsed.data : undefined
}

export function formatMergeRecord(record: MergeRecord): string {
  return `${JSON.stringify(record, null, 2)}\n`
}

/** `BASE and ADAPTER:0.5`. */
export function mergedFrom({ base, adapters }: MergeRecord): string {
  return `${base.name} and ${adapters.map(({ name, scale }) => (scale === 1 ? name : `${name}:${scale}`)).join(', ')}`
}
