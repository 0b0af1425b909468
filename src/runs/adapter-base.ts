import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import {
  type Quantization,
  quantizationOf,
  type QuantizationOptions,
  quantizationSchema,
  quantizationText,
} from '../config/index.ts'
import { readJsonObject } from '../formats/json.ts'
import type { Origin } from '../hub/resolve.ts'
import { originsSchema, textsSchema } from './recorded.ts'
import { status, type StatusEvent } from '../util/task.ts'

/** How the base model was held while an adapter was trained on it. */
export interface AdapterBase {
  /** Undefined: as it is stored. */
  readonly quantization: Quantization | undefined
  /** The file that says so. */
  readonly file: string
  /** What it was called, the hashes of its files (see `RunInputs`), and the commit of one from the hub, where these are known. */
  readonly name: string | undefined
  readonly hashes: Readonly<Record<string, string>>
  readonly origin: Origin | undefined
}

const record = z.object({
  config: quantizationSchema.extend({ model: z.string().optional().catch(undefined) }),
  hashes: textsSchema.catch({}),
  origins: originsSchema.optional(),
})

// The record of a run, and that of a checkpoint, which is an adapter too.
const records = {
  'run.json': record,
  'trainer_state.json': z.object({ inputs: record }),
}

/**
 * What the record beside an adapter says of its base. PEFT's files do not: with the base held in another way, an adapter gives other
 * losses. Undefined where there is no record, as with adapters made elsewhere.
 */
export async function baseOfAdapter(folder: string): Promise<AdapterBase | undefined> {
  for (const [name, schema] of Object.entries(records)) {
    const file = join(folder, name)
    if (!(await stat(file).catch(() => undefined))?.isFile()) continue
    const json = await readJsonObject(file, { code: 'adapter' }).catch(() => undefined)
    const parsed = schema.safeParse(json)
    if (!parsed.success) continue
    const { config, hashes, origins } = 'config' in parsed.data ? parsed.data : parsed.data.inputs
    return { quantization: quantizationOf(config), file, name: config.model, hashes, origin: origins?.model }
  }
  return undefined
}

/**
 * How the base of a model is to be held where nothing is trained: as the options say, else as it was while the adapter was trained. Reports
 * what is taken, and from where.
 */
export async function* baseFor(
  config: QuantizationOptions & { readonly adapter?: string | undefined },
): AsyncGenerator<StatusEvent, Quantization | undefined> {
  const { adapter, loadIn4bit, loadIn8bit } = config
  if (adapter === undefined || loadIn4bit !== undefined || loadIn8bit) return quantizationOf(config)
  const found = await baseOfAdapter(adapter)
  if (found === undefined) {
    yield status(`base model: as it is stored (${adapter} has no run.json that says how it was held)`)
    return undefined
  }
  const { quantization, file } = found
  yield status(
    `base model: ${quantization === undefined ? 'as it is stored' : quantizationText(quantization)} (by ${file})`,
  )
  return quantization
}
