import { join } from 'node:path'
import { quantizationOf, quantizationText, type QuantizationOptions } from '../config/index.ts'
import { writeFileAtomic } from '../formats/atomic.ts'
import { writeCheckpoint } from '../formats/checkpoint.ts'
import { openModelFiles } from '../formats/model-files.ts'
import type { TensorSource } from '../formats/safetensors.ts'
import { untied } from '../model/config.ts'
import { inFloats, quantizedNames, quantizedWeights } from '../model/sources/quantized.ts'
import { withQuantizationConfig } from '../model/bitsandbytes/config.ts'
import { savedTensors } from '../model/bitsandbytes/save.ts'
import { headName } from '../model/names.ts'
import { fromHub } from '../hub/resolve.ts'
import { imageModules } from '../model/sources/names.ts'
import { openWeights } from '../model/sources/checkpoint.ts'
import type { WeightSource } from '../model/sources/source.ts'
import { claimEmptyFolder } from '../runs/empty-folder.ts'
import { heldAsStored, mergedFrom, type MergeRecord, mergeRecordName, readMergeRecord } from '../runs/merge-record.ts'
import { isFloat, isFloatStorage, type StoredWeight } from '../storage/stored.ts'
import { companionFiles } from '../text/tokenizer.ts'
import { bytesOf } from '../util/dtype.ts'
import { internalError, LowrankError } from '../util/errors.ts'
import { elements } from '../util/shape.ts'
import { status, type StatusEvent, type TaskContext } from '../util/task.ts'

export interface QuantizeConfig extends QuantizationOptions {
  readonly model: string
  /** The folder that receives the quantized model. */
  readonly output: string
  /** Bytes that a file has at most. */
  readonly maxShardSize: number
}

/** What `quantize` has written. */
export interface QuantizeResult {
  readonly outputDir: string
  /** Of the weights. */
  readonly bytes: number
  /** Tensors written, those that describe a quantized weight included. */
  readonly tensors: number
  readonly seconds: number
}

/**
 * Quantizes a model folder into another one, in the layout of bitsandbytes, as transformers saves and loads it. One weight at a time
 * is in memory. The output folder must be empty or not there, and is left so unless all is written.
 */
export async function* runQuantize(
  given: QuantizeConfig,
  { cancelled }: TaskContext,
): AsyncGenerator<StatusEvent, QuantizeResult> {
  const begun = performance.now()
  const { config } = yield* fromHub(given, { cancelled })
  const { model, output, maxShardSize } = config
  const quantization = quantizationOf(config)
  if (quantization === undefined) throw internalError('quantize without a quantization')
  const source = inFloats(await openWeights(model))
  try {
    if (source.quantization !== undefined) {
      throw new LowrankError(
        'config',
        `${given.model} is quantized already: ${quantizationText(source.quantization)}`,
        {
          hint: 'Name the unquantized model. Quantized models are trained and evaluated as they are.',
        },
      )
    }
    const opened = await openModelFiles(model)
    const { files } = await opened.small([...companionFiles, mergeRecordName])
    const merge = await readMergeRecord(model)
    if (merge !== undefined) yield status(quantizesMerge(given.model, merge))
    const text = await opened.text('config.json')
    const folder = await claimEmptyFolder(output, { model })
    try {
      const step = (): void => {
        if (cancelled())
          throw new LowrankError('cancelled', `quantizing ${given.model} was cancelled; nothing is left in ${output}`)
      }
      const quantized = quantizedWeights(source, quantization, () => false)
      const tensors = [...tensorsOf(source, quantized, step), ...source.beside]
      const parameters = [...source.specs, ...source.beside].reduce((total, { shape }) => total + elements(shape), 0)
      const written = await writeCheckpoint(output, tensors, { maxShardBytes: maxShardSize, parameters })
      step()
      for (const [name, bytes] of files) await writeFileAtomic(join(output, name), bytes)
      // Last, so that a folder without is seen not to be a model.
      const ownHead = source.specs.some(({ name }) => name === headName)
      const described = withQuantizationConfig(ownHead ? untied(text) : text, quantization, {
        floats: source.config.trunk === 'model' ? [] : imageModules.map((module) => `model.${module}`),
      })
      await writeFileAtomic(join(output, 'config.json'), described)
      await folder.release()
      return { outputDir: output, ...written, seconds: (performance.now() - begun) / 1000 }
    } catch (error) {
      await folder.undo()
      throw error
    }
  } finally {
    await source.close()
  }
}

/**
 * What was trained is small beside what quantizing changes; where the base was quantized before adapters were added, its weights are what the
 * same bits stand for, and rounding to the nearest takes off again what was added.
 */
function quantizesMerge(model: string, merge: MergeRecord): string {
  const { held } = merge.base
  const again = held === heldAsStored ? '' : `, all the more to ${held}, in which its base was held,`
  return (
    `warning: ${model} was merged from ${mergedFrom(merge)} (${mergeRecordName}): quantizing${again} can change it more than the training did. ` +
    'lowrank merge --data FILE measures it; base and adapter apart keep what was trained'
  )
}

/** All weights as they are saved; `step` is called before each is read, and may throw. */
function tensorsOf(source: WeightSource, quantized: WeightSource, step: () => void): TensorSource[] {
  const quantizes = quantizedNames(source)
  const { quantization } = quantized
  return source.specs.flatMap(({ name, shape }): TensorSource[] => {
    const stored = source.storedName(name)
    const dtype = source.storage(name)
    if (!isFloatStorage(dtype)) throw internalError(`${name} is quantized already`)
    const make = (): Promise<StoredWeight> => {
      step()
      return quantized.load(name)
    }
    if (quantization !== undefined && quantizes(name))
      return savedTensors({ name: stored, shape, quantization, dtype, make })
    return [{ name: stored, dtype, shape, data: async () => floatBytes(await make()) }]
  })
}

function floatBytes(weight: StoredWeight): Uint8Array {
  const bytes = isFloat(weight) ? bytesOf(weight.data) : undefined
  if (bytes === undefined) throw internalError('a weight to be saved in floats is quantized')
  return bytes
}
