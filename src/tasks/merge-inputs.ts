import { realpath, stat } from 'node:fs/promises'
import { type Quantization, quantizationOf, type QuantizationOptions, quantizationText } from '../config/index.ts'
import { type Adapter, readAdapter, readAdapterConfig } from '../model/peft/adapter.ts'
import { openWeights } from '../model/sources/checkpoint.ts'
import { type MergedWeights, mergedWeights } from '../model/sources/merged.ts'
import { quantizedWeights } from '../model/sources/quantized.ts'
import type { WeightSource } from '../model/sources/source.ts'
import type { ReadOptions } from '../session/read-tokens.ts'
import { adapterFromHub, fromHub, type Origin } from '../hub/resolve.ts'
import { type AdapterBase, baseOfAdapter } from '../runs/adapter-base.ts'
import { mergedFrom, mergeRecordName, readMergeRecord } from '../runs/merge-record.ts'
import { hashesOfModel, hashOfAdapter, modelSize } from '../runs/run-inputs.ts'
import { LowrankError } from '../util/errors.ts'
import { formatSize } from '../util/format.ts'
import { status, type StatusEvent, type TaskContext } from '../util/task.ts'

export interface MergeInputOptions extends QuantizationOptions {
  readonly model: string
  /** Each a folder or a name on the hub, with its scale behind a colon unless that is 1. */
  readonly adapter: readonly string[]
  /** Into which weights: those that the adapters were trained on, or those that the model has. */
  readonly into: 'trained' | 'original'
  /** Whether a base that is another than that of the training is taken. */
  readonly anyBase: boolean
}

export interface MergeConfig extends MergeInputOptions, ReadOptions {
  /** The folder that receives the merged model. */
  readonly output: string
  readonly dtype: keyof typeof dtypes | 'auto'
  /** Bytes that a file has at most. */
  readonly maxShardSize: number
  /** What the merged model is compared on with the adapter unmerged. */
  readonly data?: string | undefined
  readonly perDeviceEvalBatchSize: number
  readonly threads?: number | undefined
}

export const dtypes = { f32: 'F32', bf16: 'BF16', f16: 'F16' } as const

/** An adapter as it was asked for. */
export interface AdapterInput {
  /** What the user calls it. */
  readonly name: string
  readonly folder: string
  readonly scale: number
  readonly sha256: string
  /** What the record beside it says of its base. */
  readonly base: AdapterBase | undefined
}

export interface MergeInputs {
  readonly model: { readonly name: string; readonly folder: string; readonly origin: Origin | undefined }
  readonly adapters: readonly AdapterInput[]
  /** How the base is held before adapters are added; undefined: as it is stored. */
  readonly quantization: Quantization | undefined
  /** How it was held while they were trained, where that is known. */
  readonly trainedOn: Quantization | undefined
  /** SHA-256 of the model's files, where it was asked for. */
  readonly sha256: string | undefined
}

/**
 * Finds the model and the adapters, and decides how the base is held; whatever would come to another model than was meant is refused.
 *
 * @throws LowrankError `config`, `adapter`, `model`, `io`: what, and why.
 */
export async function* findInputs(
  given: MergeInputOptions,
  context: TaskContext,
): AsyncGenerator<StatusEvent, MergeInputs> {
  const { config, origins } = yield* fromHub({ model: given.model }, context)
  const model = { name: given.model, folder: config.model, origin: origins.model }
  const adapters: AdapterInput[] = []
  for (const text of given.adapter) {
    const { name, scale } = await withScale(text)
    const { folder } = yield* adapterFromHub(name, context)
    // Says what is missing, where something is.
    await readAdapterConfig(folder)
    const sha256 = await hashOfAdapter(folder)
    adapters.push({ name, folder, scale, sha256, base: await baseOfAdapter(folder) })
  }
  await refuseTwice(adapters)
  await refuseMerged(model, adapters, given.anyBase)
  const sha256 = yield* checkBases(model, adapters, given.anyBase)
  const trainedOn = given.into === 'original' ? commonBase(adapters, false) : undefined
  const quantization = given.into === 'original' ? undefined : yield* heldBase(given, adapters)
  if (given.into === 'original' && trainedOn !== undefined) {
    yield status(
      `warning: the adapter was trained on a base in ${quantizationText(trainedOn)}; into the original weights is another model ` +
        '(--data FILE measures the difference)',
    )
  }
  return { model, adapters, quantization, trainedOn: trainedOn ?? quantization, sha256 }
}

const scaled = /^(.+):([^:/\\]*)$/s

/** `A:0.5` is A with half of its effect, unless there is a folder of that name. */
async function withScale(text: string): Promise<{ readonly name: string; readonly scale: number }> {
  const exists = (path: string): Promise<boolean> => stat(path).then(Boolean, () => false)
  const [, name = text, written = ''] = scaled.exec(text) ?? []
  if (name === text || (await exists(text))) return { name: text, scale: 1 }
  const scale = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(written) ? Number(written) : NaN
  if (!Number.isFinite(scale) && !(await exists(name))) return { name: text, scale: 1 }
  if (Number.isFinite(scale) && scale !== 0) return { name, scale }
  const what = scale === 0 ? 'a scale of 0 adds nothing' : `the scale ${JSON.stringify(written)} is no number`
  throw new LowrankError('config', `adapter ${text}: ${what}`, {
    hint: 'A scale is a number behind a colon: --adapter DIR:0.5.',
  })
}

async function refuseTwice(adapters: readonly AdapterInput[]): Promise<void> {
  const seen = new Map<string, string>()
  for (const { name, folder } of adapters) {
    const place = await realpath(folder)
    const earlier = seen.get(place)
    seen.set(place, name)
    if (earlier === undefined) continue
    throw new LowrankError('config', `adapter ${name} is given twice`, {
      hint: 'Give it once, with the sum of the scales.',
    })
  }
}

/** A model that holds an adapter already is not the base that the adapter changes. */
async function refuseMerged(
  { name: model, folder }: MergeInputs['model'],
  adapters: readonly AdapterInput[],
  anyBase: boolean,
): Promise<void> {
  const record = await readMergeRecord(folder)
  if (record === undefined) return
  for (const { name, scale, sha256 } of adapters) {
    const held = record.adapters.find((one) => one.sha256 === sha256 || (scale < 0 && one.name === name))
    if (held === undefined) continue
    const made = `${model} was merged from ${mergedFrom(record)} (${mergeRecordName})`
    if (scale < 0) {
      const rounded =
        record.dtype === 'f32'
          ? 'the sum was rounded to f32'
          : `the sum was rounded (dtype ${record.dtype}), which lost a part of what was added`
      throw new LowrankError(
        'config',
        `adapter ${name}:${scale} would take out what was merged, which does not give the base again: ${made}, and ${rounded}`,
        { hint: `Use the base itself: ${record.base.name}.` },
      )
    }
    if (anyBase) continue
    throw new LowrankError('config', `adapter ${name} would be added a second time: ${made}`, {
      hint: `Merge into ${record.base.name}, or add it once more with --any-base.`,
    })
  }
}

/** Bytes of a model that take seconds to hash, so that it should be said what is waited for. */
const noticed = 1e9

/** Compares the model with what the records of the adapters say of theirs; returns the hash of its files where that took it. */
async function* checkBases(
  { name: model, folder, origin }: MergeInputs['model'],
  adapters: readonly AdapterInput[],
  anyBase: boolean,
): AsyncGenerator<StatusEvent, string | undefined> {
  let own: Awaited<ReturnType<typeof hashesOfModel>> | undefined
  for (const { name, base } of adapters) {
    const expected = base?.hashes['model']
    if (base === undefined || expected === undefined || anyBase) continue
    if (origin !== undefined && base.origin?.id === origin.id && base.origin.revision === origin.revision) continue
    const size = await modelSize(folder)
    if (own === undefined && size > noticed) yield status(`computing the SHA-256 of ${formatSize(size)} of weights`)
    own ??= await hashesOfModel(folder)
    if (own.model === expected) continue
    const theirs = base.name === undefined ? '' : ` (${base.name})`
    throw new LowrankError(
      'config',
      `adapter ${name} was trained on another model${theirs} than ${model}: by ${base.file} its files have the SHA-256 ${expected.slice(0, 12)}..., those of ${model} have ${own.model.slice(0, 12)}...`,
      {
        hint: 'Name the model that it was trained on. Where only files beside the weights differ, as those of the tokenizer, or to merge all the same: --any-base.',
      },
    )
  }
  return own?.model
}

/** How the base is to be held: as the options say, else as it was while the adapters were trained. */
async function* heldBase(
  config: QuantizationOptions,
  adapters: readonly AdapterInput[],
): AsyncGenerator<StatusEvent, Quantization | undefined> {
  if (config.loadIn4bit !== undefined || config.loadIn8bit) return quantizationOf(config)
  for (const { name, base } of adapters) {
    if (base === undefined) {
      yield status(`base model of ${name}: not checked, and taken as it is stored (no run.json says how it was held)`)
    }
  }
  const quantization = commonBase(adapters, true)
  const files = adapters.flatMap(({ base }) => base?.file ?? [])
  if (files.length === 0) return undefined
  const held = quantization === undefined ? 'as it is stored' : `${quantizationText(quantization)}, expanded`
  yield status(`base model: ${held} (by ${files.join(', ')})`)
  return quantization
}

/** How the bases of all adapters were held; undefined: as they are stored, or (unless `needed`) not all alike. */
function commonBase(adapters: readonly AdapterInput[], needed: boolean): Quantization | undefined {
  const held = adapters.map(({ name, base }) => ({ name, quantization: base?.quantization }))
  const [first, ...others] = held
  const other = others.find(
    ({ quantization }) => quantizationText(quantization) !== quantizationText(first?.quantization),
  )
  if (other === undefined) return first?.quantization
  if (!needed) return held.find(({ quantization }) => quantization !== undefined)?.quantization
  const texts = [first, other].map((one) => `${one?.name} on a base that is ${quantizationText(one?.quantization)}`)
  throw new LowrankError('config', `the adapters were trained on different weights: ${texts.join(', ')}`, {
    hint: 'Say into which: --into original, or how the base is held (--method qlora, --load-in-4bit=false, ...).',
  })
}

/** The merged weights, and those of the model as they are stored; closing the first closes all. */
export async function openMerged({
  model,
  adapters,
  quantization,
}: Pick<MergeInputs, 'model' | 'adapters' | 'quantization'>): Promise<{
  readonly merged: MergedWeights
  readonly original: WeightSource
}> {
  const original = await openWeights(model.folder)
  const opened: Adapter[] = []
  try {
    for (const { folder } of adapters) opened.push(await readAdapter(folder))
    // What an adapter has in full is not quantized while it is trained.
    const saved = opened.flatMap(({ tensors }) => [...tensors.tensors.keys()])
    const isSaved = (name: string): boolean => saved.some((tensor) => tensor.endsWith(`.${name}`))
    const base = quantization === undefined ? original : quantizedWeights(original, quantization, isSaved)
    const parts = adapters.map(({ folder, scale }, i) => ({ folder, scale, adapter: opened[i]! }))
    return { merged: await mergedWeights(base, parts), original }
  } catch (error) {
    await original.close()
    for (const { tensors } of opened) await tensors.close()
    throw error
  }
}
