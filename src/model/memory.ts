import type { FloatDtype } from '../util/dtype.ts'
import type { DecoderConfig } from './config.ts'
import { families } from './families.ts'
import { weightSpecs } from './weights.ts'

/** What a run takes, estimated, in bytes. */
export interface MemoryEstimate {
  /** Results of linear layers that backward keeps of all blocks. */
  readonly keptBytes: number
  /** What 16-bit weights take more once they are f32. */
  readonly expansionBytes: number
  /** Weights as stored and the scratch space of one block and of the head. */
  readonly otherBytes: number
}

/** Of micro-batches of up to `positions` tokens. */
export function estimateMemory(config: DecoderConfig, storage: FloatDtype, positions: number): MemoryEstimate {
  const widths = families[config.modelType].linears(config).map((linear) => linear.outFeatures)
  const perPosition = widths.reduce((total, width) => total + width, 0) + config.hiddenSize
  const parameters = weightSpecs(config).reduce((total, { shape }) => total + shape.reduce((n, size) => n * size, 1), 0)
  const weightBytes = (storage === 'F32' ? 4 : 2) * parameters
  const scratch = 4 * config.hiddenSize * config.vocabSize + 40 * positions * perPosition
  return {
    keptBytes: 4 * positions * perPosition * config.numHiddenLayers,
    expansionBytes: 4 * parameters - weightBytes,
    otherBytes: weightBytes + scratch,
  }
}
