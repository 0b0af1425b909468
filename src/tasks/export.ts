import { basename, resolve } from 'node:path'
import { type Quantization, quantizationOf, type QuantizationOptions } from '../config/index.ts'
import { exporters } from '../export/index.ts'
import type { Checked, Exporter, ExportInput, Written } from '../export/exporter.ts'
import type { ExportDtype, ExportForm } from '../export/forms.ts'
import { publish, refuseOutput } from '../export/publish.ts'
import { adapterFromHub, exactName, fromHub } from '../hub/resolve.ts'
import { readAdapterConfig } from '../model/peft/adapter.ts'
import { openWeights } from '../model/sources/checkpoint.ts'
import { baseOfAdapter } from '../runs/adapter-base.ts'
import { LowrankError } from '../util/errors.ts'
import { reported, status, type StatusEvent, type TaskContext } from '../util/task.ts'
import { findInputs, type MergeConfig, openMerged } from './merge-inputs.ts'

export interface ExportConfig extends QuantizationOptions {
  readonly model?: string | undefined
  readonly adapter?: string | undefined
  readonly to: ExportForm
  readonly output: string
  readonly dtype?: ExportDtype | undefined
  /** Whether what was written is read again. */
  readonly check: boolean
  readonly anyBase: boolean
  readonly threads?: number | undefined
  /** Bytes that a file of `merged` has at most. */
  readonly maxShardSize: number
}

/** What `exportModel` has written. */
export interface ExportResult extends Written {
  /** The file or folder. */
  readonly output: string
  readonly to: ExportForm
  /** How numbers are stored. */
  readonly dtype: string
  /** What was found when it was read again; undefined where it was not. */
  readonly checked: Checked | undefined
  readonly seconds: number
}

/**
 * Writes a model, an adapter, or both in one, in the form that another program reads, reads it again, and compares. Nothing is left where
 * anything goes wrong.
 */
export async function* runExport(
  config: ExportConfig,
  context: TaskContext,
): AsyncGenerator<StatusEvent, ExportResult> {
  const begun = performance.now()
  const { to, output } = config
  if (to === 'merged') return yield* runMerged(config, context)
  const exporter = exporters[to]
  const dtype = dtypeOf(config, exporter)
  const { makes, extension } = exporter
  // Finding the inputs may take a download.
  await refuseOutput({ output, makes, extension, reads: { model: config.model, adapter: config.adapter } })
  const found = yield* inputsOf(config, exporter, context)
  const { model, adapter } = found
  const options = { output, reads: { model, adapter }, makes, extension }
  const result = yield* reported((report) => {
    const input: ExportInput = { ...found, dtype, threads: config.threads, cancelled: context.cancelled, report }
    return publish(options, async (path) => {
      const written = await exporter.write(input, path)
      return { ...written, checked: config.check ? await exporter.check(input, path) : undefined }
    })
  })
  return { output, to, dtype, ...result, seconds: (performance.now() - begun) / 1000 }
}

function dtypeOf({ to, dtype }: ExportConfig, { dtypes }: Exporter): ExportDtype {
  if (dtype === undefined) return dtypes[0]
  if (dtypes.includes(dtype)) return dtype
  throw new LowrankError('config', `dtype: ${to} does not have ${dtype} (it has ${dtypes.join(', ')})`)
}

type FoundInputs = Pick<ExportInput, 'model' | 'adapter' | 'quantization' | 'name' | 'base' | 'weights'>

/** Finds model and adapter, with how the base was held; what would come to another model than was meant is refused as by `merge`. */
async function* inputsOf(
  config: ExportConfig,
  exporter: Exporter,
  context: TaskContext,
): AsyncGenerator<StatusEvent, FoundInputs> {
  const { adapter: given, to } = config
  if (given === undefined) {
    if (exporter.needs.includes('adapter')) {
      throw new LowrankError('config', `adapter: ${to} needs one`, {
        hint: 'Name the folder of the adapter, such as the output folder of a run: --adapter DIR.',
      })
    }
    return yield* modelAlone(config, context)
  }
  const { folder } = yield* adapterFromHub(given, context)
  const { baseModel } = await readAdapterConfig(folder)
  const model = config.model ?? (await baseOfAdapter(folder))?.name ?? baseModel
  const base = { name: baseModel ?? model ?? '' }
  const name = nameOf(given)
  const own = { adapter: folder, name, base, weights: noWeights }
  // Its base is compared with, where it is known and there.
  if (config.model === undefined && !exporter.needs.includes('model')) {
    return { ...own, model: undefined, quantization: undefined }
  }
  if (model === undefined) {
    throw new LowrankError('config', `model: ${given} does not say which base model it belongs to`, {
      hint: 'Name it: --model DIR, a folder, or ORG/NAME of the hub.',
    })
  }
  if (config.model === undefined) yield status(`model: ${model}, as the adapter names it`)
  const inputs = yield* findInputs({ ...config, model, adapter: [given], into: 'trained' }, context)
  const [adapter] = inputs.adapters
  if (adapter === undefined || adapter.scale !== 1) {
    throw new LowrankError('config', `adapter ${given}: an adapter is exported as it is, without a scale`, {
      hint: 'Merge it with its scale (lowrank merge), and export the merged model.',
    })
  }
  const { model: found, quantization } = inputs
  return {
    ...own,
    base: { name: baseModel ?? found.name },
    model: found.folder,
    quantization,
    weights: async () => (await openMerged(inputs)).merged,
  }
}

const noWeights = (): never => {
  throw new LowrankError('internal', 'internal: an adapter is exported without its model')
}

async function* modelAlone(config: ExportConfig, context: TaskContext): AsyncGenerator<StatusEvent, FoundInputs> {
  const { model } = config
  if (model === undefined) {
    throw new LowrankError('config', 'model, adapter: neither is given', {
      hint: 'Name what is to be exported: --adapter DIR, --model DIR, or both.',
    })
  }
  const asked: Quantization | undefined = quantizationOf(config)
  if (asked !== undefined) {
    throw new LowrankError('config', 'the model alone is exported as it is, not quantized by bitsandbytes', {
      hint: 'Leave out the options of quantization; --dtype says how GGUF stores the weights.',
    })
  }
  const { config: found, origins } = yield* fromHub({ model }, context)
  return {
    model: found.model,
    adapter: undefined,
    quantization: undefined,
    name: nameOf(model),
    base: { name: origins.model === undefined ? model : exactName(origins.model) },
    weights: () => openWeights(found.model),
  }
}

/** The last part of a path or name, without what follows an `@`. */
function nameOf(path: string): string {
  return basename(resolve(path))
    .replace(/@[^@]*$/, '')
    .replace(/\.gguf$/i, '')
}

/** What `merge` writes, and checks by its own means. */
async function* runMerged(config: ExportConfig, context: TaskContext): AsyncGenerator<StatusEvent, ExportResult> {
  const { adapter, output, dtype = 'auto' } = config
  if (adapter === undefined) {
    throw new LowrankError('config', 'adapter: merged needs one', {
      hint: 'Name the folder of the adapter: --adapter DIR.',
    })
  }
  if (dtype === 'q8_0' || dtype === 'q4_0') {
    throw new LowrankError('config', `dtype: merged does not have ${dtype} (it has f32, f16, bf16)`)
  }
  const { folder } = yield* adapterFromHub(adapter, context)
  const model = config.model ?? (await baseOfAdapter(folder))?.name ?? (await readAdapterConfig(folder)).baseModel
  if (model === undefined) {
    throw new LowrankError('config', `model: ${adapter} does not say which base model it belongs to`, {
      hint: 'Name it: --model DIR, a folder, or ORG/NAME of the hub.',
    })
  }
  const { runMerge } = await import('./merge.ts')
  const given = { ...config, model, adapter: [adapter], into: 'trained', dtype } as unknown as MergeConfig
  const { outputDir, bytes, dtype: stored, seconds } = yield* runMerge(given, context)
  const files = [{ name: basename(outputDir), bytes }]
  return { output, to: 'merged', dtype: stored, files, notes: [], checked: undefined, seconds }
}
