import { type Quantization, quantizationText } from '../config/index.ts'
import { peakMemory } from '../engine/machine.ts'
import { type FloatTensor, saveModel } from '../export/save.ts'
import { openModelFiles } from '../formats/model-files.ts'
import { headName } from '../model/names.ts'
import { addChange, type ChangeSums, noChange, stored, totalOf } from '../model/rounding.ts'
import type { MergedWeights } from '../model/sources/merged.ts'
import type { WeightSource } from '../model/sources/source.ts'
import { claimEmptyFolder } from '../runs/empty-folder.ts'
import { formatMergeRecord, heldAsStored, mergeRecordName } from '../runs/merge-record.ts'
import { isFloatStorage } from '../storage/stored.ts'
import { companionFiles, tokenizerFiles } from '../text/tokenizer.ts'
import { type FloatDtype, isFloat8 } from '../util/dtype.ts'
import { LowrankError } from '../util/errors.ts'
import { formatSize, percent } from '../util/format.ts'
import { elements } from '../util/shape.ts'
import { status, type StatusEvent, type TaskContext, whileWaiting } from '../util/task.ts'
import { versionOf } from '../util/version.ts'
import {
  type AdapterInput,
  dtypes,
  findInputs,
  type MergeConfig,
  type MergeInputs,
  openMerged,
} from './merge-inputs.ts'
import type { MergeComparison } from './merge-report.ts'

/** What merging changed in some weights; norms are the roots of sums of squares. */
export interface MergeChange {
  /** Weights that adapters change. */
  readonly weights: number
  /** Norm of what was added, as a share of that of the weights. */
  readonly delta: number
  /** Norm of what rounding to the stored dtype changed, as a share of that of the merged weights, and of what was added. */
  readonly rounding: number
  readonly roundingOfDelta: number
  /** Share of the changed elements that are stored as if nothing had been added. */
  readonly lost: number
}

/** What merging changed in a layer, counted from 0, or in what is outside of all: `embed_tokens`, `lm_head`, `norm`. */
export interface MergedLayer extends MergeChange {
  readonly layer: number | string
}

/** What `merge` has written, and what that changed. */
export interface MergeResult {
  readonly outputDir: string
  /** Of the weights. */
  readonly bytes: number
  readonly tensors: number
  /** How the weights are stored: f32, bf16, f16, or several of them. */
  readonly dtype: string
  /** How the base was held before adapters were added, in words. */
  readonly base: string
  readonly layers: readonly MergedLayer[]
  readonly total: MergeChange
  /** Where data were given. */
  readonly comparison?: MergeComparison
  readonly seconds: number
  /** Highest resident memory in bytes. */
  readonly peakMemory: number
}

/**
 * Adds adapters to a model and writes the sum as a model folder, a few rows of a weight at a time. The output folder must be empty or not
 * there, and is left so unless all is written.
 */
export async function* runMerge(config: MergeConfig, context: TaskContext): AsyncGenerator<StatusEvent, MergeResult> {
  const begun = performance.now()
  const inputs = yield* findInputs(config, context)
  const { model, adapters } = inputs
  const comparing = config.data === undefined ? undefined : await import('./merge-report.ts')
  await using data = comparing === undefined ? undefined : yield* comparing.readComparisonData(config, inputs, context)
  const opened = await openMerged(inputs)
  let result: Omit<MergeResult, 'seconds' | 'peakMemory'>
  try {
    const { merged, original } = opened
    refuseScaled(model.name, original)
    const companions = yield* companionsOf(model.folder, adapters)
    const folder = await claimEmptyFolder(config.output, {
      model: model.folder,
      adapter: adapters.map((one) => one.folder),
    })
    try {
      const writer = new MergeWriter(merged, original, config, context)
      const held = heldAs(inputs.quantization ?? original.quantization)
      companions.set(mergeRecordName, Buffer.from(recordOf(inputs, { held, dtype: writer.dtype })))
      const base = { config: await (await openModelFiles(model.folder)).text('config.json'), companions }
      const work = saveModel({
        folder: config.output,
        base,
        tensors: writer.tensors,
        beside: merged.beside,
        maxShardSize: config.maxShardSize,
        ownHead: merged.specs.some(({ name }) => name === headName),
      })
      const written = yield* whileWaiting(work, { look: () => writer.progress(), stop: () => writer.stop() })
      await folder.release()
      result = {
        outputDir: config.output,
        ...written,
        dtype: writer.dtype,
        base: held,
        ...writer.changes(),
      }
    } catch (error) {
      await folder.undo()
      throw error
    }
  } finally {
    await opened.merged.close()
  }
  const comparison =
    comparing === undefined || data === undefined
      ? undefined
      : yield* comparing.compareMerged({ config, inputs, data, dtype: result.dtype }, context)
  const seconds = (performance.now() - begun) / 1000
  return { ...result, ...(comparison === undefined ? {} : { comparison }), seconds, peakMemory: peakMemory() }
}

function heldAs(quantization: Quantization | undefined): string {
  return quantization === undefined ? heldAsStored : quantizationText(quantization)
}

/** A merged model is written in floats, and its config.json says nothing of scales any more. */
function refuseScaled(model: string, { config, beside }: WeightSource): void {
  const scaled = config.quantization && beside.find(({ dtype }) => isFloat8(dtype))
  if (scaled === undefined) return
  throw new LowrankError(
    'config',
    `a merged model is written in floats, but ${model} has ${scaled.name} in ${scaled.dtype}, which is not read`,
    { hint: 'Merge into the model in floats.' },
  )
}

/**
 * The small files of the merged model: those of the base, but the tokenizer and the template with which the adapters were trained, where
 * they have their own and agree on it.
 */
async function* companionsOf(
  model: string,
  adapters: readonly AdapterInput[],
): AsyncGenerator<StatusEvent, Map<string, Uint8Array>> {
  const { files, leftOut } = await (await openModelFiles(model)).small(companionFiles)
  for (const message of leftOut) yield status(message)
  const companions = new Map(files)
  const { readSmallFiles } = await import('../formats/model-folder.ts')
  const sets: ReadonlyMap<string, Uint8Array>[] = []
  for (const { folder } of adapters) {
    const own = (await readSmallFiles(folder, tokenizerFiles)).files
    if (own.has('tokenizer.json')) sets.push(own)
  }
  const [first, ...others] = sets
  if (first === undefined) return companions
  if (others.some((other) => differing(first, other).length > 0)) {
    yield status('warning: the adapters have different tokenizer files; those of the base are written')
    return companions
  }
  const differ = differing(companions, first).filter((name) => first.has(name))
  if (differ.length > 0) yield status(`tokenizer: that of the adapter, which differs in ${differ.join(', ')}`)
  for (const [name, bytes] of first) companions.set(name, bytes)
  return companions
}

/** Names of the files that are not the same in both. */
function differing(a: ReadonlyMap<string, Uint8Array>, b: ReadonlyMap<string, Uint8Array>): string[] {
  return [...new Set([...a.keys(), ...b.keys()])].filter((name) => {
    const [one, other] = [a.get(name), b.get(name)]
    return tokenizerFiles.includes(name) && (!one || !other || Buffer.compare(one, other) !== 0)
  })
}

function recordOf(
  { model, adapters, sha256 }: MergeInputs,
  { held, dtype }: { readonly held: string; readonly dtype: string },
): string {
  return formatMergeRecord({
    lowrank: versionOf('lowrank'),
    base: {
      name: model.name,
      ...(model.origin === undefined ? {} : { revision: model.origin.revision }),
      ...(sha256 === undefined ? {} : { sha256 }),
      held,
    },
    adapters: adapters.map(({ name, scale, sha256: hash }) => ({ name, scale, sha256: hash })),
    dtype,
  })
}

/** Makes the bytes of the merged weights as they are asked for, and sums up what that changes. */
class MergeWriter {
  readonly tensors: readonly FloatTensor[]
  readonly #merged: MergedWeights
  readonly #context: TaskContext
  readonly #total: number
  readonly #sums = new Map<number | string, ChangeSums>()
  #done = 0
  readonly #begun = performance.now()
  #reportAt = 0
  #stopped = false

  constructor(merged: MergedWeights, original: WeightSource, config: MergeConfig, context: TaskContext) {
    this.#merged = merged
    this.#context = context
    const dtypeOf = (name: string): FloatDtype => {
      if (config.dtype !== 'auto') return dtypes[config.dtype]
      const own = original.specs.some((spec) => spec.name === name) ? original.storage(name) : merged.storage(name)
      // What was held in fewer bits has no dtype of its own.
      return isFloatStorage(own) ? own : 'BF16'
    }
    this.tensors = merged.specs.map(({ name, shape }): FloatTensor => {
      const dtype = dtypeOf(name)
      return { name: merged.storedName(name), dtype, shape, data: () => this.#bytesOf(name, shape, dtype) }
    })
    this.#total = this.tensors.reduce((sum, { dtype, shape }) => sum + (dtype === 'F32' ? 4 : 2) * elements(shape), 0)
  }

  /** How the weights are stored, in words. */
  get dtype(): string {
    return [...new Set(this.tensors.map(({ dtype }) => dtype.toLowerCase()))].join(', ')
  }

  /** Ends the writing where nobody waits for it any more. */
  stop(): void {
    this.#stopped = true
  }

  /** What there is to report: a line now and then. */
  progress(): string[] {
    const now = performance.now()
    if (now < this.#reportAt || this.#done === 0) return []
    // Of a merge of hours there are some hundreds.
    this.#reportAt = now + Math.max(2000, (now - this.#begun) / 20)
    const share = percent(this.#done / this.#total, 0)
    return [`merging: ${formatSize(this.#done)} of ${formatSize(this.#total)} written (${share})`]
  }

  changes(): Pick<MergeResult, 'layers' | 'total'> {
    const layers = [...this.#sums].map(([layer, sums]) => ({ layer, ...changeOf(sums) }))
    return { layers, total: changeOf(totalOf(this.#sums.values())) }
  }

  async *#bytesOf(name: string, shape: readonly number[], dtype: FloatDtype): AsyncGenerator<Uint8Array> {
    const changes = this.#merged.changes(name)
    const sums = noChange()
    sums.weights = changes ? 1 : 0
    const width = shape.length < 2 ? elements(shape) : elements(shape.slice(1))
    for await (const { rows, before, after } of this.#merged.rowsOf(name)) {
      if (this.#stopped || this.#context.cancelled()) throw new LowrankError('cancelled', 'the merge was cancelled')
      const bytes = stored(after, dtype, { name, first: rows.start * width })
      if (changes) addChange(sums, { before, after }, { bytes, dtype })
      this.#done += bytes.byteLength
      yield bytes
    }
    if (changes) this.#add(name, sums)
  }

  #add(name: string, sums: ChangeSums): void {
    const number = /\.layers\.(\d+)\./.exec(name)?.[1]
    const layer = number === undefined ? (name.split('.').at(-2) ?? name) : Number(number)
    this.#sums.set(layer, totalOf([this.#sums.get(layer) ?? noChange(), sums]))
  }
}

function changeOf({ weights, before, after, delta, rounding, changed, lost }: ChangeSums): MergeChange {
  const share = (part: number, of: number): number => (of === 0 ? 0 : Math.sqrt(part / of))
  return {
    weights,
    delta: share(delta, before),
    rounding: share(rounding, after),
    roundingOfDelta: share(rounding, delta),
    lost: changed === 0 ? 0 : lost / changed,
  }
}
