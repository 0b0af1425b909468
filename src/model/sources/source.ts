import type { Quantization } from '../../config/index.ts'
import type { TensorSource } from '../../formats/safetensors.ts'
import type { FloatWeight, Storage, StoredWeight } from '../../storage/stored.ts'
import { describeElement, indexOfNonFinite } from '../../util/dtype.ts'
import { LowrankError } from '../../util/errors.ts'
import type { DecoderConfig } from '../decoder.ts'
import type { WeightSpec } from '../weight-specs.ts'

/** Where the weights of a model come from: a checkpoint on disk, or a random generator. */
export interface WeightSource {
  readonly config: DecoderConfig
  readonly specs: readonly WeightSpec[]
  /** How the linear layers are quantized, of a checkpoint that is. */
  readonly quantization: Quantization | undefined
  /** What a weight is called where the model is written again. */
  readonly storedName: (name: string) => string
  /** What the checkpoint holds of a model that is more than the decoder, to be written again unchanged. */
  readonly beside: readonly TensorSource[]
  /** How a weight is stored. Random ones, which no file stores, are loaded as F32 whatever their model is to be stored as. */
  readonly storage: (name: string) => Storage
  /**
   * Reads a weight, into the memory of `reuse` where that is a weight of the same storage and shape. `rows`: that no others are needed; a
   * source that reads whole weights only gives all.
   */
  readonly load: (name: string, reuse?: StoredWeight, rows?: Rows) => Promise<StoredWeight>
  readonly close: () => Promise<void>
}

/** Rows of a weight [rows, ...], from `start` up to `end`. */
export interface Rows {
  readonly start: number
  readonly end: number
}

/** @throws LowrankError `code`: an element is not finite, and so would be every loss. */
export function checkFinite(
  { storage, data }: FloatWeight,
  {
    name,
    file,
    code,
    first = 0,
  }: {
    readonly name: string
    readonly file: string
    readonly code: 'model' | 'adapter'
    /** The place in the tensor of the first element of these. */
    readonly first?: number
  },
): void {
  const index = indexOfNonFinite(data, storage)
  if (index === -1) return
  throw new LowrankError(code, `${file}: tensor ${name} holds ${describeElement(data, storage, index, first)}`, {
    hint: 'The weights are damaged, or overflowed before they were saved.',
  })
}
