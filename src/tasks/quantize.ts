import { mkdir, readdir, realpath, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { quantizationOf, quantizationText, type QuantizationOptions } from '../config/index.ts'
import { writeError, writeFileAtomic } from '../formats/atomic.ts'
import { unfinishedName, writeCheckpoint } from '../formats/checkpoint.ts'
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
import { isFloat, isFloatStorage, type StoredWeight } from '../storage/stored.ts'
import { companionFiles } from '../text/tokenizer.ts'
import { bytesOf } from '../util/dtype.ts'
import { internalError, LowrankError } from '../util/errors.ts'
import { elements } from '../util/shape.ts'
import type { StatusEvent, TaskContext } from '../util/task.ts'

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
    const { files } = await opened.small(companionFiles)
    const text = await opened.text('config.json')
    const undo = await claimFolder(output, model)
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
      return { outputDir: output, ...written, seconds: (performance.now() - begun) / 1000 }
    } catch (error) {
      await undo()
      throw error
    }
  } finally {
    await source.close()
  }
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

/** Makes the output folder, which must be empty if it is there; returns what makes it so again. */
async function claimFolder(output: string, model: string): Promise<() => Promise<void>> {
  const [to, from] = await Promise.all([output, model].map((path) => realpath(path).catch(() => resolve(path))))
  if (to === from) {
    throw new LowrankError('config', `output: ${output} is the folder of the model itself`, {
      hint: 'Choose another folder: the unquantized model is left as it is.',
    })
  }
  const created = await mkdir(output, { recursive: true }).catch((error: Error) => {
    throw writeError(output, error)
  })
  const found = (await readdir(output)).find((name) => name !== unfinishedName)
  if (found !== undefined) {
    throw new LowrankError('config', `output: the folder ${output} is not empty (${found})`, {
      hint: 'Choose a folder that is empty or not there yet.',
    })
  }
  return async () => {
    if (created !== undefined) await rm(created, { recursive: true, force: true })
    else for (const name of await readdir(output)) await rm(join(output, name), { recursive: true, force: true })
  }
}
