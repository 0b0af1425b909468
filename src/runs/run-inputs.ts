import { readdir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { defaultOf, resumeRule, trainSchema, type TrainConfig } from '../config/index.ts'
import { standardInput } from '../formats/chunks.ts'
import { type FileHashing, hashFile, hashFiles, hashingInThreads, hashText } from '../formats/hash.ts'
import { isJsonObject, readJsonObject } from '../formats/json.ts'
import { isGgufFile } from '../formats/model-files.ts'
import { indexName, singleName } from '../formats/safetensors.ts'
import { maxHeaderBytes } from '../formats/safetensors-header.ts'
import { exactName, type Origins } from '../hub/resolve.ts'
import type { DataFiles, TrainingData } from '../session/data.ts'
import type { Dataset } from '../text/dataset.ts'
import type { DataSource } from '../text/readers/index.ts'
import { configName, weightsName } from '../model/peft/adapter.ts'
import { templateHash } from '../text/template/choose.ts'
import { companionFiles } from '../text/tokenizer.ts'
import { versionOf } from '../util/version.ts'
import { originsSchema, textsSchema } from './recorded.ts'

/** What a run is made from. With the seed among the options, it decides every byte of the result. */
export const runInputsSchema = z.object({
  /** The resolved configuration. */
  config: z.record(z.string(), z.unknown()).readonly(),
  versions: textsSchema,
  /**
   * SHA-256 of what was read, as hex: of `train` and `valid` the file, or the files; of `chatTemplate` its text; of `model` and `adapter`
   * names and contents of the files. Of a model in parts `modelIndex` is that of what says where they are, which earlier versions did not
   * record.
   */
  hashes: textsSchema,
  /** The commits of what is from the hub. */
  origins: originsSchema.optional(),
  /** Computing threads: how many there are decides the order in which products are summed. */
  threads: z.int(),
})

export type RunInputs = Readonly<z.output<typeof runInputsSchema>>

/** What a run calls its model and its adapter, where that is not the folder. */
type InputNames = Partial<Pick<TrainConfig, 'model' | 'adapter'>> & {
  readonly origins?: Origins
  /** The files of its data, and what was read of them. */
  readonly files: DataFiles
  readonly data?: TrainingData
}

/** Reads all files of a run once, to describe them; without `modelHashes`, all but those of its model. */
export async function describeInputs(
  config: TrainConfig,
  threads: number,
  { model: name = config.model, adapter: adapterName = config.adapter, origins = {}, files, data }: InputNames,
  modelHashes: ModelHashes | undefined,
): Promise<RunInputs> {
  const { adapter, chatTemplate } = config
  const template = chatTemplate === undefined ? undefined : await templateHash(chatTemplate)
  const recorded = { ...config, model: name, adapter: adapterName, webhookUrl: originOf(config.webhookUrl) }
  return {
    // As it is read back: without what is unset.
    config: JSON.parse(JSON.stringify(recorded)) as RunInputs['config'],
    versions: { lowrank: versionOf('lowrank'), node: process.version, onnxruntime: versionOf('onnxruntime-node') },
    hashes: {
      ...modelHashes,
      train: await hashSources(files.train, data?.train),
      ...(files.valid === undefined ? {} : { valid: await hashSources(files.valid, data?.valid) }),
      ...(template === undefined ? {} : { chatTemplate: template }),
      ...(adapter === undefined ? {} : { adapter: await hashOfAdapter(adapter) }),
    },
    ...(Object.keys(origins).length === 0 ? {} : { origins }),
    threads,
  }
}

/**
 * Of one file that is all, its own; of several, that of each and how often it comes. What came from standard input is gone: there the texts
 * count, as they were read.
 */
async function hashSources(sources: readonly DataSource[], read: Dataset | undefined): Promise<string> {
  const hashOf = async (path: string): Promise<string> => read?.hashes?.get(path) ?? hashFile(path)
  const [only] = sources
  if (only !== undefined && sources.length === 1 && only.weight === 1 && only.path !== standardInput)
    return hashOf(only.path)
  const lines: string[] = []
  for (const { path, weight } of sources) {
    const hash =
      path === standardInput ? hashText((read?.fingerprints ?? new Float64Array()).join()) : await hashOf(path)
    lines.push(`${hash} ${weight}`)
  }
  return hashText(lines.join('\n'))
}

/** Whoever knows the whole address of a webhook may post to it: the record of a run, which is passed around, has its host alone. */
function originOf(url: string | undefined): string | undefined {
  return url === undefined ? undefined : new URL(url).origin
}

/** The hashes of a model, as the record of a run has them. */
export interface ModelHashes {
  readonly model: string
  readonly modelIndex?: string
}

export async function hashesOfModel(
  model: string,
  { file, files }: FileHashing = { file: hashFile, files: hashFiles },
): Promise<ModelHashes> {
  const index = await indexFiles(model)
  return {
    // A file by itself may be called anything, as a folder may.
    model: (await isGgufFile(model)) ? await file(model) : await files(await modelFiles(model)),
    ...(index.length === 0 ? {} : { modelIndex: await files(index) }),
  }
}

/** The hashes of a model, which threads of their own compute. Those that are not done end with `stop`. */
export function beginHashesOfModel(model: string): {
  readonly hashes: Promise<ModelHashes>
  readonly stop: () => void
} {
  const { stop, ...hashing } = hashingInThreads()
  const hashes = hashesOfModel(model, hashing)
  // Reported where they are awaited; a run that ends before asks for none.
  hashes.catch(() => {})
  return { hashes, stop }
}

/** The hash of an adapter, likewise. */
export function hashOfAdapter(folder: string): Promise<string> {
  return hashFiles([configName, weightsName].map((name) => join(folder, name)))
}

/** Bytes that `describeInputs` reads of a model. */
export async function modelSize(folder: string): Promise<number> {
  const paths = [...(await modelFiles(folder)), ...(await indexFiles(folder))]
  const sizes = await Promise.all(paths.map(async (path) => (await stat(path)).size))
  return sizes.reduce((total, size) => total + size, 0)
}

/** The files that make a model what it is: configuration, weights, tokenizer, the tokens that end a text. */
async function modelFiles(folder: string): Promise<string[]> {
  if (await isGgufFile(folder)) return [folder]
  const names = await readdir(folder)
  const isPart = (name: string): boolean =>
    name === 'config.json' || companionFiles.includes(name) || name.endsWith('.safetensors')
  const parts = names.filter(isPart)
  const paths = parts.sort().map((name) => join(folder, name))
  // A folder of such a name, or a link to nowhere, is read by no one.
  const found = await Promise.all(paths.map((path) => stat(path).catch(() => undefined)))
  return paths.filter((_, i) => found[i]?.isFile() === true)
}

/** What says where the parts of a model are, and those that lie where `modelFiles` does not look; none of a model in one file. */
async function indexFiles(folder: string): Promise<string[]> {
  if (await isGgufFile(folder)) return []
  const names = await readdir(folder)
  if (names.includes(singleName) || !names.includes(indexName)) return []
  const path = join(folder, indexName)
  const { weight_map: map } = await readJsonObject(path, { code: 'model', maxBytes: maxHeaderBytes })
  const parts = Object.values(isJsonObject(map) ? map : {}).filter((part) => typeof part === 'string')
  const others = [...new Set(parts)].filter((part) => dirname(part) !== '.' || !part.endsWith('.safetensors'))
  return [path, ...others.sort().map((part) => join(folder, part))]
}

function dependsOnEvaluations({ config }: RunInputs): boolean {
  return config['loadBestModelAtEnd'] === true || config['earlyStoppingPatience'] !== undefined
}

/** What has changed that decides the course of training, a line each: `learningRate: 0.001 -> 0.002`. */
export function changedInputs(before: RunInputs, now: RunInputs): string[] {
  const changes: string[] = []
  const evaluated = dependsOnEvaluations(before) || dependsOnEvaluations(now)
  for (const key of Object.keys(trainSchema.shape)) {
    const rule = resumeRule(key)
    if (rule === 'free' || (rule === 'evaluations' && !evaluated)) continue
    // An option that was added to Lowrank later had the effect of its default.
    const [old, current] = [before.config, now.config].map((config) => show(config[key] ?? defaultOf(key)))
    if (old !== current) changes.push(`${key}: ${old} -> ${current}`)
  }
  for (const key of ['model', 'modelIndex', 'adapter', 'train', 'chatTemplate', ...(evaluated ? ['valid'] : [])]) {
    const option = key === 'modelIndex' ? 'model' : key
    const [old, current] = [before, now].map(({ config, hashes, origins }) =>
      hashes[key] === undefined
        ? undefined
        : { path: show(exactlyNamed(option, origins) ?? config[option]), hash: hashes[key].slice(0, 12) },
    )
    if (old?.hash === current?.hash) continue
    // A run that ended early has not recorded its model, an earlier version not its index; a model that had none then and has one now is
    // another by its files, too.
    if (option === 'model' && old === undefined) continue
    const [from, to] = [old, current].map((one) =>
      one === undefined ? 'none' : `${one.path} (SHA-256 ${one.hash}...)`,
    )
    changes.push(`${option}, its ${key === option ? 'content' : indexName}: ${from} -> ${to}`)
  }
  if (before.threads !== now.threads) {
    changes.push(`threads: ${before.threads} -> ${now.threads} (with --threads ${before.threads} it is as it was)`)
  }
  return changes
}

function exactlyNamed(option: string, origins: Origins = {}): string | undefined {
  const origin = option === 'model' || option === 'adapter' ? origins[option] : undefined
  return origin && exactName(origin)
}

/** Versions that differ: the last bits of results may, too. */
export function changedVersions(before: RunInputs, now: RunInputs): string[] {
  return Object.keys(now.versions)
    .filter((name) => before.versions[name] !== now.versions[name])
    .map((name) => `${name} ${before.versions[name] ?? 'none'} -> ${now.versions[name]}`)
}

function show(value: unknown): string {
  return value === undefined ? 'unset' : JSON.stringify(value)
}
