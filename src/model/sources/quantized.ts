import { quantizationText, type Quantization } from '../../config/index.ts'
import { quantizeFourBit } from '../../storage/fourbit.ts'
import { quantizeInt8 } from '../../storage/int8.ts'
import { type F32Weight, kindOf, type Storage, type StoredWeight } from '../../storage/stored.ts'
import { LowrankError } from '../../util/errors.ts'
import { headName } from '../names.ts'
import { linearPaths } from '../weight-specs.ts'
import type { WeightSource } from './source.ts'
import { widened } from '../../storage/formats.ts'

/**
 * The same weights with the linear layers of the blocks quantized as they are loaded, one at a time. Norms, embedding and head stay as
 * they are stored, as with bitsandbytes; so do those that `except` names. A checkpoint quantized in this way already is used as it is.
 *
 * @throws LowrankError `config`: the checkpoint is quantized in another way.
 */
export function quantizedWeights(
  source: WeightSource,
  quantization: Quantization,
  except: (name: string) => boolean,
): WeightSource {
  if (source.quantization !== undefined) {
    const [found, asked] = [source.quantization, quantization].map(quantizationText)
    if (found === asked) return source
    throw new LowrankError('config', `the model is quantized already, ${found}; asked for is ${asked}`, {
      hint: 'Leave out the quantization options to use the model as it is (method lora trains an adapter on it too), or name the unquantized model.',
    })
  }
  const quantizes = quantizedNames(source)
  return {
    ...source,
    quantization,
    storage: (name) => (quantizes(name) && !except(name) ? storageOf(quantization) : source.storage(name)),
    load: async (name, reuse, rows) => {
      if (!quantizes(name) || except(name)) return source.load(name, reuse, rows)
      return quantizeWeight(widened(await source.load(name)), quantization, name)
    },
  }
}

/** The same weights, with those in blocks of GGUF as f32. */
export function inFloats(source: WeightSource): WeightSource {
  const packed = (name: string): boolean => ['blocks', 'split'].includes(kindOf(source.storage(name)))
  return {
    ...source,
    storage: (name) => (packed(name) ? 'F32' : source.storage(name)),
    load: async (name, reuse, rows) => {
      const weight = await source.load(name, packed(name) ? undefined : reuse, rows)
      return packed(name) ? widened(weight) : weight
    },
  }
}

/** Whether a weight is one of those that are quantized where nothing else is said: of all linear layers but the head. */
export function quantizedNames({ config }: WeightSource): (name: string) => boolean {
  const linears = new Set(linearPaths(config).map((path) => `${path}.weight`))
  linears.delete(headName)
  return (name) => linears.has(name)
}

/** What a weight quantized so is stored as. */
function storageOf(quantization: Quantization): Storage {
  return quantization.kind === '8bit' ? { kind: 'int8' } : quantization
}

/** @throws LowrankError `model`: an element that is not finite. */
export function quantizeWeight({ data, shape }: F32Weight, quantization: Quantization, name: string): StoredWeight {
  const [rows = 0, columns = 0] = shape
  if (quantization.kind === '8bit')
    return { storage: { kind: 'int8' }, shape, ...quantizeInt8(data, rows, columns, name) }
  return { storage: quantization, shape, packed: quantizeFourBit(data, quantization, name) }
}
