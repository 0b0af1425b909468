import { mkdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { writeFileAtomic } from '../formats/atomic.ts'
import { writeCheckpoint } from '../formats/checkpoint.ts'
import { editJson } from '../formats/json-edit.ts'
import type { TensorSource } from '../formats/safetensors.ts'
import { writeAdapter, type AdapterCard } from '../model/peft.ts'
import type { LoraConfig } from '../model/targets.ts'
import { f32ToBytes, type FloatDtype } from '../util/dtype.ts'
import type { Trainable } from './optimizer.ts'

/** What is needed to write the result of a run. */
export interface SaveOptions {
  readonly folder: string
  readonly trainables: ReadonlyMap<string, Trainable>
  readonly tokenizerFiles: readonly string[]
  /** Folder of the base model. */
  readonly baseModel: string
  /** The adapter's configuration; undefined where every weight was trained. */
  readonly lora: LoraConfig | undefined
  readonly peftName: (name: string) => string
  /** How the base stores a weight. */
  readonly storage: (name: string) => FloatDtype
  /** How the weights of a whole model are stored; auto: as the base stores them. */
  readonly saveDtype: keyof typeof dtypes | 'auto'
  /** Most bytes in a file of a whole model. */
  readonly maxShardSize: number
  /** How it was trained, for the model card. */
  readonly facts: AdapterCard['facts']
}

/** Writes an adapter as PEFT does, or a whole model as transformers does, file by file atomically. */
export async function saveResult(options: SaveOptions): Promise<void> {
  await mkdir(options.folder, { recursive: true })
  if (options.lora === undefined) await saveWholeModel(options)
  else await saveAdapter(options, options.lora)
}

/** Whether the files that `saveResult` writes hold the trained weights bit for bit. */
export function storesExactly({ lora, trainables, saveDtype, storage }: SaveOptions): boolean {
  return lora !== undefined || [...trainables.keys()].every((name) => dtypeOf(name, { saveDtype, storage }) === 'F32')
}

async function saveAdapter(options: SaveOptions, config: LoraConfig): Promise<void> {
  const { folder, trainables, tokenizerFiles, baseModel, peftName, facts } = options
  const tensors = [...trainables.values()].map(({ name, shape, data }) => ({ name: peftName(name), shape, data }))
  await writeAdapter({ folder, config, baseModel, tensors, tokenizerFiles, card: { facts } })
}

async function saveWholeModel(options: SaveOptions): Promise<void> {
  const { folder, trainables, tokenizerFiles, baseModel, storage, saveDtype, maxShardSize } = options
  const stored = new Set<FloatDtype>()
  const tensors = [...trainables.values()].map(({ name, shape, data }): TensorSource => {
    const dtype = dtypeOf(name, { saveDtype, storage })
    stored.add(dtype)
    return { name, dtype, shape, data: () => f32ToBytes(data, dtype) }
  })
  await writeCheckpoint(folder, tensors, { maxShardBytes: maxShardSize })
  for (const path of [join(baseModel, 'generation_config.json'), ...tokenizerFiles]) {
    const bytes = await readFile(path).catch((error: unknown) => {
      // Not every model has a generation_config.json.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    })
    if (bytes !== undefined) await writeFileAtomic(join(folder, basename(path)), bytes)
  }
  const [dtype, ...others] = stored
  const config = await readFile(join(baseModel, 'config.json'), 'utf8')
  const text = asFloats(config, others.length === 0 ? dtype : undefined)
  await writeFileAtomic(join(folder, 'config.json'), text)
}

function dtypeOf(name: string, { saveDtype, storage }: Pick<SaveOptions, 'saveDtype' | 'storage'>): FloatDtype {
  return saveDtype === 'auto' ? storage(name) : dtypes[saveDtype]
}

const dtypes = { f32: 'F32', bf16: 'BF16', f16: 'F16' } as const

const torchNames = { F32: 'float32', BF16: 'bfloat16', F16: 'float16' } as const

/** A config.json for float weights, all of this dtype if one is given. */
function asFloats(config: string, dtype: FloatDtype | undefined): string {
  const changes: Record<string, unknown> = { quantization_config: undefined }
  if (dtype !== undefined) {
    const given = JSON.parse(config) as object
    // The name it had before transformers 5, which later versions read too.
    const keys = ['dtype', 'torch_dtype'].filter((key) => Object.hasOwn(given, key))
    for (const key of keys.length > 0 ? keys : ['torch_dtype']) changes[key] = torchNames[dtype]
  }
  return editJson(config, changes)
}
