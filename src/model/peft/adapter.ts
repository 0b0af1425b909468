import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileAtomic } from '../../formats/atomic.ts'
import { readJsonObject } from '../../formats/json.ts'
import {
  openSafetensors,
  renameTensors,
  type TensorReader,
  type TensorSource,
  writeSafetensors,
} from '../../formats/safetensors.ts'
import { f32ToBytes, type FloatDtype } from '../../util/dtype.ts'
import { LowrankError, messageOf } from '../../util/errors.ts'
import { type BaseModel, formatAdapterConfig, parseAdapterConfig } from './adapter-config.ts'
import { cardName } from './card.ts'
import { type LoraConfig, ranksOf } from './targets.ts'

/** An adapter folder that was opened. Close `tensors` when done. */
export interface Adapter {
  readonly config: LoraConfig
  /** Name or path of the base model as the adapter gives it, if it does. */
  readonly baseModel: string | undefined
  /** F32, F16, BF16 or F64, by PEFT's names: see `loraTensorNames` and `savedTensorName`. */
  readonly tensors: TensorReader
  /** Paths of the modules that have A and B, in the file's order. */
  readonly modules: readonly string[]
}

/** A tensor of an adapter, named as PEFT names it. */
export interface AdapterTensor {
  readonly name: string
  readonly shape: readonly number[]
  /** Must not change until the adapter is written. */
  readonly data: Float32Array
}

interface WriteAdapterOptions {
  /** Made where it does not exist. */
  readonly folder: string
  readonly config: LoraConfig
  readonly base: BaseModel
  readonly tensors: Iterable<AdapterTensor>
  /** How they are stored; F32 where it is not said. */
  readonly dtype?: FloatDtype
  /** Files to write beside the adapter, by name: those of the tokenizer. */
  readonly files: ReadonlyMap<string, Uint8Array>
  /** The model card; one that is there stays where it is undefined. */
  readonly card: string | undefined
}

/** Names of a module's adapter in `adapter_model.safetensors`: A [r, in] and B [out, r]. */
export function loraTensorNames(module: string): { readonly a: string; readonly b: string } {
  return { a: `${prefix}${module}${suffixA}`, b: `${prefix}${module}${suffixB}` }
}

/**
 * Name of a base model parameter that is trained and saved with the adapter (a bias, or one of a module to save). An
 * adapted module (`adapted`) has its bias in the layer that PEFT wrapped.
 */
export function savedTensorName(parameter: string, adapted = false): string {
  return prefix + (adapted ? parameter.replace(/\.bias$/, '.base_layer.bias') : parameter)
}

/** The base model's name of the parameter that a tensor of an adapter stands for: the inverse of `savedTensorName`. */
export function baseNameOf(tensor: string): string {
  return tensor.slice(prefix.length).replace('.base_layer.', '.')
}

/** Reads `adapter_config.json` of a folder. Errors have code `adapter`. */
export async function readAdapterConfig(
  folder: string,
): Promise<{ config: LoraConfig; baseModel: string | undefined }> {
  const path = join(folder, configName)
  const isModel = existsSync(join(folder, 'config.json')) && !existsSync(path)
  const hint = `An adapter folder holds ${configName} and ${weightsName}, as PEFT saves it${isModel ? '; this one holds a model, not an adapter' : ''}.`
  return parseAdapterConfig(await readJsonObject(path, { code: 'adapter', maxBytes: 2 ** 24, hint }), path)
}

/** Opens an adapter folder and checks its tensors against its configuration. Errors have code `adapter`. */
export async function readAdapter(folder: string): Promise<Adapter> {
  const { config, baseModel } = await readAdapterConfig(folder)
  const names = await readdir(folder)
  if (!names.includes(weightsName)) {
    const pickle = names.includes('adapter_model.bin')
    throw new LowrankError('adapter', `${folder} has no ${weightsName}${pickle ? ', only adapter_model.bin' : ''}`, {
      hint: pickle
        ? 'Pickle files can run code when they are loaded, so they are not read. Load the adapter in Python and save it again.'
        : undefined,
    })
  }
  const path = join(folder, weightsName)
  // PEFT reads both; the name of an adapter goes into that of its tensors while it is in use.
  const tensors = renameTensors(await openSafetensors(path, { code: 'adapter' }), (name) =>
    name.replace(/\.lora_([AB])\.default\.weight$/, '.lora_$1.weight'),
  )
  try {
    return { config, baseModel, tensors, modules: adaptedModules(tensors, config, path) }
  } catch (error) {
    await tensors.close()
    throw error
  }
}

/**
 * Writes an adapter folder as PEFT does, then what goes with it: files and a model card. An adapter already there is
 * replaced: a loader that comes meanwhile finds the old one, the new one, or no `adapter_config.json` and so no
 * adapter, but never the weights of one with the configuration of the other.
 */
export async function writeAdapter(options: WriteAdapterOptions): Promise<void> {
  const { folder, config, base, dtype = 'F32' } = options
  const tensors = Array.from(options.tensors, ({ name, shape, data }): TensorSource => ({
    name,
    dtype,
    shape,
    data: f32ToBytes(data, dtype),
  }))
  const adapted = tensors.map(({ name }) => name).filter((name) => name.endsWith(suffixA))
  const modules = adapted.map((name) => name.slice(prefix.length, -suffixA.length))
  const own = tensors.map(({ name }) => baseNameOf(name)).filter((name) => !name.includes('.lora_'))
  const saved = own.filter((name) => name.endsWith('.weight')).map((name) => name.slice(0, -'.weight'.length))
  const json = formatAdapterConfig(config, base, { adapted: modules, saved })
  await mkdir(folder, { recursive: true }).catch((cause: unknown) => {
    throw new LowrankError('io', `cannot create the folder ${folder}: ${messageOf(cause)}`, { cause })
  })
  // A changed configuration leaves first and comes last. Where it stays the same, the weights may change under it.
  const configPath = join(folder, configName)
  const unchanged = (await readFile(configPath, 'utf8').catch(() => undefined)) === json
  if (!unchanged) await rm(configPath, { force: true })
  await writeSafetensors(join(folder, weightsName), tensors, { format: 'pt' })
  if (!unchanged) await writeFileAtomic(configPath, json)
  for (const [name, bytes] of options.files) await writeFileAtomic(join(folder, name), bytes)
  if (options.card !== undefined) await writeFileAtomic(join(folder, cardName), options.card)
}

/** The two files that are an adapter. */
export const [configName, weightsName] = ['adapter_config.json', 'adapter_model.safetensors'] as const
const prefix = 'base_model.model.'
const suffixA = '.lora_A.weight'
const suffixB = '.lora_B.weight'

/** Modules with an adapter; each must have A [r, in] and B [out, r] of the rank that the configuration gives it. */
function adaptedModules({ tensors }: TensorReader, config: LoraConfig, path: string): string[] {
  const fail = (name: string, what: string, hint?: string): never => {
    throw new LowrankError('adapter', `${path}: tensor "${name}" ${what}`, { hint })
  }
  const modules = [...tensors.keys()].filter((name) => name.endsWith(suffixA)).map(moduleOfA)
  const ranks = ranksOf(config, modules)
  for (const [name, { dtype, shape }] of tensors) {
    const strange = strangeName(name)
    if (strange !== undefined) fail(name, ...strange)
    if (!readable.has(dtype)) fail(name, `is ${dtype}; ${[...readable].join(', ')} are supported`)
    if (shape.includes(0)) {
      fail(name, `is empty, [${shape.join(', ')}]`, 'DeepSpeed ZeRO-3 leaves parts of a model so: save it gathered.')
    }
    if (!name.includes('.lora_')) continue
    if (name.endsWith(suffixB)) {
      if (!tensors.has(name.slice(0, -suffixB.length) + suffixA)) fail(name, 'has no lora_A beside it')
      continue
    }
    if (!name.endsWith(suffixA)) fail(name, 'belongs to a kind of adapter that is not supported')
    const module = moduleOfA(name)
    const shapeB = tensors.get(loraTensorNames(module).b)?.shape ?? fail(name, 'has no lora_B beside it')
    const r = ranks.get(module)
    if (shape.length !== 2 || shapeB.length !== 2 || shape[0] !== r || shapeB[1] !== r) {
      fail(
        name,
        `is [${shape.join(', ')}] and its B [${shapeB.join(', ')}]: rank ${r} needs [${r}, in] and [out, ${r}]`,
      )
    }
  }
  if (modules.length === 0) throw new LowrankError('adapter', `${path} has no LoRA tensors`)
  return modules
}

const readable: ReadonlySet<string> = new Set(['F32', 'F16', 'BF16', 'F64'])

function moduleOfA(name: string): string {
  return name.slice(prefix.length, -suffixA.length)
}

/** What is wrong with a name that PEFT would not give a tensor of such a model, and what to do; PEFT itself passes over them. */
function strangeName(name: string): [what: string, hint?: string] | undefined {
  if (/(^|\.)_orig_mod\./.test(name)) {
    const hint = 'Save it from the model before torch.compile, or take "_orig_mod." out of the names of the tensors.'
    return ['is named as a compiled model names it', hint]
  }
  if (name.startsWith(prefix + prefix)) {
    return ['was wrapped by PEFT twice', 'Save the adapter from the inner of the two PeftModels.']
  }
  if (/^base_model\.model\.layers\.\d+\./.test(name)) {
    return [
      'lacks the "model." of a decoder with a head',
      'It was trained on the decoder alone (AutoModel), without its head.',
    ]
  }
  return name.startsWith(prefix) ? undefined : [`is not named as PEFT does (${prefix}...)`]
}
