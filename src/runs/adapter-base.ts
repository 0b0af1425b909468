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
import { adapterFromHub, exactName, type Origin } from '../hub/resolve.ts'
import { configName, readAdapterConfig } from '../model/peft/adapter.ts'
import { originsSchema, textsSchema } from './recorded.ts'
import { LowrankError } from '../util/errors.ts'
import { parseHubName } from '../util/hub-name.ts'
import { status, type StatusEvent, type TaskContext } from '../util/task.ts'

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

const date = z.object({ templateDate: z.iso.date() })
const dates = {
  'run.json': z.object({ config: date }).transform(({ config }) => config.templateDate),
  'trainer_state.json': z
    .object({ inputs: z.object({ config: date }) })
    .transform(({ inputs }) => inputs.config.templateDate),
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

/** The base model of an adapter, as it says itself. */
interface FoundBase {
  readonly name: string
  /** The file that says so. */
  readonly file: string
}

/**
 * A configuration with the base model that it names, or that its adapter was trained on: by the record beside the adapter, else by
 * `base_model_name_or_path` of PEFT's own file. Reports what was found.
 *
 * @throws LowrankError `config`: nothing says what the base is; `adapter`: it is none, or its base is not where it was.
 */
export async function* withBase<
  C extends { readonly model?: string | undefined; readonly adapter?: string | undefined },
>(config: C, context: TaskContext): AsyncGenerator<StatusEvent, C & { readonly model: string }> {
  const { model, adapter } = config
  if (model !== undefined) return { ...config, model }
  if (adapter === undefined) throw noModel('neither a model nor an adapter is named')
  const { folder } = yield* adapterFromHub(adapter, context)
  const found = await baseNamedBy(folder)
  if (found === undefined) throw noModel(`nothing in ${adapter} says which model it was trained on`)
  const { name, file } = found
  const exists = await stat(name).catch(() => undefined)
  if (exists === undefined && parseHubName(name) === undefined) {
    throw new LowrankError('adapter', `${file}: the base model ${name} is not there, seen from the current folder`, {
      hint: 'Name it: --model (model).',
    })
  }
  yield status(`base model: ${name} (by ${file})`)
  return { ...config, model: name }
}

async function baseNamedBy(folder: string): Promise<FoundBase | undefined> {
  const recorded = await baseOfAdapter(folder)
  if (recorded?.origin !== undefined) return { name: exactName(recorded.origin), file: recorded.file }
  if (recorded?.name !== undefined) return { name: recorded.name, file: recorded.file }
  const { baseModel } = await readAdapterConfig(folder)
  return baseModel === undefined || baseModel === '' ? undefined : { name: baseModel, file: join(folder, configName) }
}

function noModel(what: string): LowrankError {
  return new LowrankError('config', `model: ${what}`, { hint: 'Name the base model: --model (model).' })
}

/**
 * The day that the template of a run wrote, where a model or adapter is evaluated: as the options say, else the one that was recorded beside
 * it. Undefined where there is none.
 */
export async function dayFor({
  model,
  adapter,
  templateDate,
}: {
  readonly model: string
  readonly adapter?: string | undefined
  readonly templateDate?: string | undefined
}): Promise<string | undefined> {
  if (templateDate !== undefined) return templateDate
  for (const [name, schema] of Object.entries(dates)) {
    const file = join(adapter ?? model, name)
    if (!(await stat(file).catch(() => undefined))?.isFile()) continue
    const parsed = schema.safeParse(await readJsonObject(file, { code: 'adapter' }).catch(() => undefined))
    if (parsed.success) return parsed.data
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
