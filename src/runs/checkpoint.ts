import { readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { z } from 'zod'
import { memoryChoiceSchema } from '../config/index.ts'
import { writeFileAtomic } from '../formats/atomic.ts'
import { removeFolderAtomic, settleFolders, writeFolderAtomic } from '../formats/atomic-folder.ts'
import { hashFile, hashText } from '../formats/hash.ts'
import { readJsonObject } from '../formats/json.ts'
import {
  openCheckpoint as openModelFiles,
  openSafetensors,
  type TensorReader,
  type TensorSource,
  writeSafetensors,
} from '../formats/safetensors.ts'
import { bytesOf } from '../util/dtype.ts'
import { LowrankError, messageOf } from '../util/errors.ts'
import { runInputsSchema } from './run-inputs.ts'
import { saveResult, storesExactly, type SaveOptions } from '../export/save.ts'
import { type Training, trainerStateSchema } from '../train/trainer.ts'

/*
 * A checkpoint is a folder `checkpoint-N`: the adapter or model after step N, as at the end of a run, and
 *   optimizer.safetensors   what the optimizer remembers (`state.*`); the f32 weights (`weight.*`) where the files beside it have them
 *                           rounded; the best weights so far (`best.*`)
 *   trainer_state.json      everything else, with size and SHA-256 of each file
 * There is no random state: what is random is a function of seed, step and place.
 */

const stateName = 'trainer_state.json'
const tensorsName = 'optimizer.safetensors'
const format = 1

/** `trainer_state.json`. */
const recordSchema = z
  .object({
    format: z.literal(format),
    state: trainerStateSchema,
    /** Updates that the optimizer has made. */
    optimizerSteps: z.int().min(0),
    /** When the run began, and the wall time it took up to here, without pauses. */
    startedAt: z.string(),
    seconds: z.number().min(0),
    /** Length of `metrics.jsonl` then: what comes after it is reported again. */
    metricsBytes: z.int().min(0),
    inputs: runInputsSchema,
    memory: memoryChoiceSchema,
    /** Every other file of the checkpoint. */
    files: z.record(z.string(), z.object({ bytes: z.int().min(0), sha256: z.string() })),
  })
  .superRefine(({ state, optimizerSteps }, context) => {
    const { step: now, evaluated, skipped, skippedSinceLog, logged, best, tokens, realTokens, labelTokens } = state
    const atMost = (most: number, found: Readonly<Record<string, number | undefined>>): void => {
      for (const [name, value = 0] of Object.entries(found)) {
        if (value <= most) continue
        context.addIssue({ code: 'custom', path: name.split('.'), message: `found ${value}, expected at most ${most}` })
      }
    }
    atMost(now, { 'state.evaluated': evaluated, 'state.logged': logged, 'state.best.step': best?.step, optimizerSteps })
    atMost(now, { 'state.skipped': skipped, 'state.skippedSinceLog': skippedSinceLog })
    atMost(tokens, { 'state.realTokens': realTokens })
    atMost(realTokens, { 'state.labelTokens': labelTokens })
  })

type CheckpointRecord = z.output<typeof recordSchema>

/** A checkpoint that was found whole. */
export interface Checkpoint {
  readonly folder: string
  readonly record: CheckpointRecord
}

interface SaveCheckpointOptions {
  readonly training: Training
  /** How the weights are written for other programs; `folder` is that of the checkpoint. */
  readonly result: SaveOptions
  readonly about: Pick<CheckpointRecord, 'startedAt' | 'seconds' | 'metricsBytes' | 'inputs' | 'memory'>
}

/** Writes a checkpoint of a run as it is now, between two steps. It appears whole or not at all. */
export async function saveCheckpoint({ training, result, about }: SaveCheckpointOptions): Promise<void> {
  await writeFolderAtomic(result.folder, async (folder) => {
    await saveResult({ ...result, folder, widenLarge: true })
    await writeSafetensors(join(folder, tensorsName), tensorsOf(training, { weights: !storesExactly(result) }))
    const files: Record<string, CheckpointRecord['files'][string]> = {}
    for (const name of (await readdir(folder)).sort()) {
      const path = join(folder, name)
      files[name] = { bytes: (await stat(path)).size, sha256: await hashFile(path) }
    }
    const { state, optimizer } = training
    const record: CheckpointRecord = { format, state, optimizerSteps: optimizer.steps, ...about, files }
    const text = JSON.stringify({ ...record, sha256: hashText(JSON.stringify(record)) }, null, 2)
    await writeFileAtomic(join(folder, stateName), `${text}\n`)
  })
}

function* tensorsOf(training: Training, { weights }: { readonly weights: boolean }): Generator<TensorSource> {
  const { trainables, optimizer, bestWeights } = training
  for (const [name, data] of optimizer.state) yield tensor(`state.${name}`, [data.length], data)
  for (const { name, shape, data } of trainables.values()) {
    if (weights) yield tensor(`weight.${name}`, shape, data)
    const best = bestWeights.get(name)
    if (best !== undefined) yield tensor(`best.${name}`, shape, best)
  }
}

function tensor(name: string, shape: readonly number[], data: Float32Array | Uint8Array): TensorSource {
  return { name, dtype: dtypeOf(data), shape, data: bytesOf(data) }
}

function dtypeOf(data: Float32Array | Uint8Array): 'F32' | 'U8' {
  return data instanceof Float32Array ? 'F32' : 'U8'
}

/**
 * Reads `trainer_state.json` of a checkpoint and checks every file against it.
 *
 * @throws LowrankError `checkpoint`: what is missing, cut or changed.
 */
export async function readCheckpoint(folder: string): Promise<Checkpoint> {
  const path = join(folder, stateName)
  const hint = `A checkpoint that a run can continue from has ${stateName}, ${tensorsName} and the weights. Were they all copied?`
  const { sha256, ...content } = await readJsonObject(path, { code: 'checkpoint', hint })
  const fail = (what: string): never => {
    throw new LowrankError('checkpoint', what, { hint })
  }
  if (content['format'] !== format) {
    fail(`${path}: format ${JSON.stringify(content['format'])}; this version of Lowrank reads ${format}`)
  }
  if (sha256 !== hashText(JSON.stringify(content))) fail(`${path}: damaged: its content does not have its SHA-256`)
  const parsed = recordSchema.safeParse(content)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    return fail(`${path}: ${issue?.path.join('.')}: ${issue?.message}`)
  }
  const record = parsed.data
  for (const [name, { bytes }] of Object.entries(record.files)) {
    if (basename(name) !== name || name.startsWith('.'))
      fail(`${path}: ${JSON.stringify(name)} is not the name of a file`)
    const found = await stat(join(folder, name)).catch((error: unknown) =>
      fail(`${join(folder, name)} is missing: ${messageOf(error)}`),
    )
    if (found.size !== bytes) fail(`${join(folder, name)}: damaged: it has ${found.size} bytes, ${bytes} were written`)
  }
  for (const [name, { sha256: expected }] of Object.entries(record.files)) {
    if ((await hashFile(join(folder, name))) !== expected) {
      fail(`${join(folder, name)}: damaged: its content does not have the SHA-256 it was written with`)
    }
  }
  return { folder, record }
}

/**
 * Puts a run where a checkpoint was: weights, optimizer, best weights, state. `fileName` names a trained weight as the adapter or model
 * files do.
 *
 * @throws LowrankError `checkpoint`, the run being half changed, where it is not of the checkpoint's shape.
 */
export async function restoreTraining(
  { folder, record }: Checkpoint,
  training: Training,
  fileName: (name: string) => string,
): Promise<void> {
  const { config, trainables, optimizer, bestWeights, state } = training
  const own = await openSafetensors(join(folder, tensorsName), { code: 'checkpoint' })
  let result: TensorReader | undefined
  try {
    result = await openResult(folder)
    for (const { name, shape, data } of trainables.values()) {
      const exact = own.tensors.has(`weight.${name}`)
      await (exact ? fill(own, `weight.${name}`, shape, data) : fill(result, fileName(name), shape, data))
    }
    for (const [name, data] of optimizer.state) await fill(own, `state.${name}`, [data.length], data)
    const { best, ...rest } = record.state
    const hasBest = best !== undefined && [...own.tensors.keys()].some((name) => name.startsWith('best.'))
    if (config.loadBestModelAtEnd && hasBest) {
      for (const { name, shape, data } of trainables.values()) {
        const copy = new Float32Array(data.length)
        await fill(own, `best.${name}`, shape, copy)
        bestWeights.set(name, copy)
      }
    }
    optimizer.steps = record.optimizerSteps
    // Weights that were not kept cannot be the best in the end.
    Object.assign(state, rest, { best: hasBest || !config.loadBestModelAtEnd ? best : undefined })
  } finally {
    await own.close()
    await result?.close()
  }
}

/** The weights as other programs read them: of an adapter, or of a whole model. */
async function openResult(folder: string): Promise<TensorReader> {
  const adapter = join(folder, 'adapter_model.safetensors')
  const isAdapter = await stat(adapter).catch(() => undefined)
  return isAdapter === undefined
    ? openModelFiles(folder, { code: 'checkpoint' })
    : openSafetensors(adapter, { code: 'checkpoint' })
}

async function fill(
  reader: TensorReader,
  name: string,
  shape: readonly number[],
  data: Float32Array | Uint8Array,
): Promise<void> {
  const info = reader.tensors.get(name)
  const wanted = `${dtypeOf(data)} [${shape.join(', ')}]`
  const found = info && `${info.dtype} [${info.shape.join(', ')}]`
  if (found !== wanted) {
    const [{ file } = { file: 'the checkpoint' }] = reader.tensors.values()
    throw new LowrankError(
      'checkpoint',
      `${file}: tensor "${name}" is ${found ?? 'missing'}, the run needs ${wanted}`,
      {
        hint: 'The run trains other weights, or with another optimizer, than the one that wrote the checkpoint.',
      },
    )
  }
  await reader.read(name, bytesOf(data))
}

const isCheckpointName = (name: string): boolean => /^checkpoint-\d+$/.test(name)

/** The checkpoints of an output folder, whole or not, by their steps; not those of other programs. */
export async function listCheckpoints(
  outputDir: string,
): Promise<{ readonly step: number; readonly folder: string }[]> {
  const own: { readonly step: number; readonly folder: string }[] = []
  for (const name of await checkpointNames(outputDir)) {
    const folder = join(outputDir, name)
    if (await isOurs(folder)) own.push({ step: Number(name.slice('checkpoint-'.length)), folder })
  }
  return own.sort((a, b) => a.step - b.step)
}

/** Names of what looks like checkpoints in an output folder, but was written by another program (transformers calls them so too). */
export async function foreignCheckpoints(outputDir: string): Promise<string[]> {
  const names = await checkpointNames(outputDir)
  const ours = await Promise.all(names.map((name) => isOurs(join(outputDir, name))))
  return names.filter((_, i) => !ours[i])
}

async function checkpointNames(outputDir: string): Promise<string[]> {
  const names = await readdir(outputDir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error
  })
  return names.filter(isCheckpointName)
}

/** Also of a damaged one: no other trainer writes a file of this name. There is nothing to lose in an empty folder. */
async function isOurs(folder: string): Promise<boolean> {
  const names = await readdir(folder).catch(() => undefined)
  if (names === undefined) return false
  if (names.length === 0 || names.includes(tensorsName)) return true
  const state = await readJsonObject(join(folder, stateName), { code: 'checkpoint' }).catch(() => ({}))
  return 'optimizerSteps' in state && 'format' in state
}

/** Removes the oldest checkpoints of an output folder, until `limit` are left. */
export async function pruneCheckpoints(outputDir: string, limit: number): Promise<void> {
  const checkpoints = await listCheckpoints(outputDir)
  for (const { folder } of checkpoints.slice(0, Math.max(0, checkpoints.length - limit))) {
    await removeFolderAtomic(folder)
  }
}

/** Ends what a killed run left half done. */
export async function settleCheckpoints(outputDir: string): Promise<void> {
  await settleFolders(outputDir, isCheckpointName)
}

/**
 * The newest checkpoint of an output folder that is whole, and what is wrong with those after it; undefined where there is none at all.
 *
 * @throws LowrankError `checkpoint`: there are some, but none is whole.
 */
export async function latestCheckpoint(
  outputDir: string,
): Promise<{ readonly checkpoint: Checkpoint; readonly damaged: readonly string[] } | undefined> {
  const damaged: string[] = []
  for (const { folder } of (await listCheckpoints(outputDir)).reverse()) {
    try {
      return { checkpoint: await readCheckpoint(folder), damaged }
    } catch (error) {
      if (!(error instanceof LowrankError && error.code === 'checkpoint')) throw error
      damaged.push(error.message)
    }
  }
  if (damaged.length === 0) return undefined
  throw new LowrankError('checkpoint', `no checkpoint in ${outputDir} is whole:\n  ${damaged.join('\n  ')}`, {
    hint: 'Without --resume the run starts from the beginning, and removes them.',
  })
}
