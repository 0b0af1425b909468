import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileAtomic } from '../formats/atomic.ts'
import { isShard, writeCheckpoint } from '../formats/checkpoint.ts'
import { editJson } from '../formats/json-edit.ts'
import { indexName, singleName, type TensorSource } from '../formats/safetensors.ts'
import { type AdapterCard, cardName, modelCard } from '../model/peft/card.ts'
import { untied } from '../model/config.ts'
import { configName, weightsName, writeAdapter } from '../model/peft/adapter.ts'
import type { LoraConfig } from '../model/peft/targets.ts'
import { companionFiles, tokenizerFiles } from '../text/tokenizer.ts'
import { headName } from '../model/names.ts'
import { f32ToBytes, type FloatDtype, indexOfOverflow, torchNames } from '../util/dtype.ts'
import { LowrankError } from '../util/errors.ts'
import type { Trainable } from '../engine/trainable.ts'

/** What is kept of a base model to be written again: its folder may be gone when a run ends. */
export interface SavedBase {
  /** Name or path. */
  readonly name: string
  /** The branch, tag or commit of a model of the hub, where one was asked for. */
  readonly revision?: string | undefined
  /** The text of its config.json. */
  readonly config: string
  /** Its `companionFiles`, by name. */
  readonly companions: ReadonlyMap<string, Uint8Array>
}

/** What is needed to write the result of a run. */
export interface SaveOptions {
  readonly folder: string
  readonly trainables: ReadonlyMap<string, Trainable>
  readonly base: SavedBase
  /** Whether a model card is written beside an adapter; by default it is. */
  readonly writesCard?: boolean
  /** Receives the names of the files, but for the model card, before the first of them is written. */
  readonly before?: (names: readonly string[]) => Promise<void>
  /** The adapter's configuration; undefined where every weight was trained. */
  readonly lora: LoraConfig | undefined
  readonly fileName: (name: string) => string
  /** What a whole model has besides, to be written as it is. */
  readonly beside?: readonly TensorSource[]
  /** How the base stores a weight. */
  readonly storage: (name: string) => FloatDtype
  /** How the weights of a whole model are stored; auto: as the base stores them. */
  readonly saveDtype: keyof typeof dtypes | 'auto'
  /** Whether a weight with numbers too large for that is stored as f32; an error where it is not set. */
  readonly widenLarge?: boolean
  /** Most bytes in a file of a whole model. */
  readonly maxShardSize: number
  /** How it was trained, for the model card. */
  readonly facts: AdapterCard['facts']
}

/** What a run makes. */
export type ResultKind = 'adapter' | 'model'

const ownNames: Readonly<Record<ResultKind, readonly string[]>> = {
  adapter: [configName, weightsName],
  model: ['config.json', singleName, indexName],
}

/** Whether a file of this name belongs to an adapter and not to a model, or the other way round. */
export function isResult(kind: ResultKind, name: string): boolean {
  if (ownNames[kind].includes(name)) return true
  if (kind === 'adapter') return name === cardName
  return isShard(name) || (companionFiles.includes(name) && !tokenizerFiles.includes(name))
}

/** Names of the files that are written of an adapter, but for its card, or of a model, but for the numbered ones of one in several parts. */
export function resultNames(kind: ResultKind, { companions }: Pick<SavedBase, 'companions'>): readonly string[] {
  return [...ownNames[kind], ...companionsOf(kind, companions).keys()]
}

function companionsOf(kind: ResultKind, companions: SavedBase['companions']): SavedBase['companions'] {
  return new Map([...companions].filter(([name]) => kind === 'model' || tokenizerFiles.includes(name)))
}

/** The model card that is written beside an adapter. */
export function cardOf({ lora, base, writesCard = true, facts }: SaveOptions): string | undefined {
  return lora !== undefined && writesCard ? modelCard(lora, base, { facts }) : undefined
}

/** Writes an adapter as PEFT does, or a whole model as transformers does, file by file atomically. */
export async function saveResult(options: SaveOptions): Promise<void> {
  await mkdir(options.folder, { recursive: true })
  if (options.lora === undefined) await saveWholeModel(options)
  else await saveAdapter(options, options.lora)
}

/** Whether the files that `saveResult` writes hold the trained weights bit for bit. */
export function storesExactly({ lora, trainables, saveDtype, storage }: SaveOptions): boolean {
  return (
    lora !== undefined || [...trainables.keys()].every((name) => savedDtype(name, { saveDtype, storage }) === 'F32')
  )
}

async function saveAdapter(options: SaveOptions, config: LoraConfig): Promise<void> {
  const { folder, trainables, base, fileName } = options
  const tensors = [...trainables.values()].map(({ name, shape, data }) => ({ name: fileName(name), shape, data }))
  const files = companionsOf('adapter', base.companions)
  await options.before?.(resultNames('adapter', base))
  await writeAdapter({ folder, config, base, tensors, files, card: cardOf(options) })
}

async function saveWholeModel(options: SaveOptions): Promise<void> {
  const { trainables, storage, saveDtype, widenLarge, fileName, beside = [] } = options
  const tensors = [...trainables.values()].map(({ name, shape, data }): FloatTensor => {
    const asked = savedDtype(name, { saveDtype, storage })
    const tooLarge = indexOfOverflow(data, asked)
    if (tooLarge !== -1 && !widenLarge) throw overflowError(name, `element ${tooLarge}`, data[tooLarge], asked)
    const dtype = tooLarge === -1 ? asked : 'F32'
    return { name: fileName(name), dtype, shape, data: () => f32ToBytes(data, dtype) }
  })
  await saveModel({ ...options, tensors, beside, ownHead: trainables.has(headName) })
}

/** A tensor of floats to be written. */
export type FloatTensor = TensorSource & { readonly dtype: FloatDtype }

export interface SaveModelOptions extends Pick<SaveOptions, 'folder' | 'maxShardSize' | 'before' | 'beside'> {
  readonly base: Pick<SavedBase, 'config' | 'companions'>
  /** By their names in files. */
  readonly tensors: readonly FloatTensor[]
  /** Whether the head is a weight of its own. */
  readonly ownHead: boolean
}

/**
 * Writes a whole model as transformers does: the weights, then its companions, and config.json last, without which no folder is taken for a
 * model. Returns the bytes of all tensors, and how many there are.
 */
export async function saveModel(
  options: SaveModelOptions,
): Promise<{ readonly bytes: number; readonly tensors: number }> {
  const { folder, base, tensors, beside = [], maxShardSize, ownHead } = options
  const others = ['config.json', ...base.companions.keys()]
  const before = (weights: readonly string[]): Promise<void> | undefined => options.before?.([...weights, ...others])
  const written = await writeCheckpoint(folder, [...tensors, ...beside], { maxShardBytes: maxShardSize, before })
  for (const [name, bytes] of base.companions) await writeFileAtomic(join(folder, name), bytes)
  const [dtype, ...otherDtypes] = new Set(tensors.map((tensor) => tensor.dtype))
  const text = asFloats(base.config, { dtype: otherDtypes.length === 0 ? dtype : undefined, ownHead })
  await writeFileAtomic(join(folder, 'config.json'), text)
  return written
}

/** How a trained weight of a whole model is stored. */
export function savedDtype(
  name: string,
  { saveDtype, storage }: Pick<SaveOptions, 'saveDtype' | 'storage'>,
): FloatDtype {
  return saveDtype === 'auto' ? storage(name) : dtypes[saveDtype]
}

const dtypes = { f32: 'F32', bf16: 'BF16', f16: 'F16' } as const

function overflowError(name: string, where: string, value: number | undefined, dtype: FloatDtype): LowrankError {
  return new LowrankError('config', `saveDtype: ${where} of ${name} is ${value}, too large for ${dtype}`, {
    hint: 'Resume the run with saveDtype bf16 or f32, which hold larger numbers.',
  })
}

/** A config.json for float weights, all of this dtype if one is given; `ownHead`: the head is a weight of its own. */
function asFloats(
  config: string,
  { dtype, ownHead }: { readonly dtype: FloatDtype | undefined; readonly ownHead: boolean },
): string {
  const changes: Record<string, unknown> = { quantization_config: undefined }
  if (dtype !== undefined) {
    const given = JSON.parse(config) as object
    // The name it had before transformers 5, which later versions read too.
    const keys = ['dtype', 'torch_dtype'].filter((key) => Object.hasOwn(given, key))
    for (const key of keys.length > 0 ? keys : ['torch_dtype']) changes[key] = torchNames[dtype]
  }
  const floats = editJson(config, changes)
  return ownHead ? untied(floats) : floats
}
