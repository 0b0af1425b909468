import { copyFile, mkdir, rename, rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { writeSafetensors, type TensorSource } from '../formats/safetensors.ts'
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
  /** How a weight of a whole model is stored. */
  readonly storage: (name: string) => FloatDtype
  /** How it was trained, for the model card. */
  readonly facts: AdapterCard['facts']
}

/** Writes an adapter as PEFT does, or a whole model as transformers does, file by file atomically. */
export async function saveResult(options: SaveOptions): Promise<void> {
  await mkdir(options.folder, { recursive: true })
  if (options.lora === undefined) await saveWholeModel(options)
  else await saveAdapter(options, options.lora)
}

/** The same as a folder of its own, which appears whole or not at all. */
export async function saveCheckpoint(options: SaveOptions): Promise<void> {
  const temporary = `${options.folder}.tmp`
  await rm(temporary, { recursive: true, force: true })
  await saveResult({ ...options, folder: temporary })
  await rm(options.folder, { recursive: true, force: true })
  await rename(temporary, options.folder)
}

async function saveAdapter(options: SaveOptions, config: LoraConfig): Promise<void> {
  const { folder, trainables, tokenizerFiles, baseModel, peftName, facts } = options
  const tensors = [...trainables.values()].map(({ name, shape, data }) => ({ name: peftName(name), shape, data }))
  await writeAdapter({ folder, config, baseModel, tensors, tokenizerFiles, card: { facts } })
}

async function saveWholeModel({ folder, trainables, tokenizerFiles, baseModel, storage }: SaveOptions): Promise<void> {
  const tensors = [...trainables.values()].map(({ name, shape, data }): TensorSource => {
    const dtype = storage(name)
    return { name, dtype, shape, data: () => f32ToBytes(data, dtype) }
  })
  await writeSafetensors(join(folder, 'model.safetensors'), tensors, { format: 'pt' })
  const configs = ['config.json', 'generation_config.json'].map((name) => join(baseModel, name))
  for (const path of [...configs, ...tokenizerFiles]) {
    await copyFile(path, join(folder, basename(path))).catch((error: unknown) => {
      // Not every model has a generation_config.json.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    })
  }
}
