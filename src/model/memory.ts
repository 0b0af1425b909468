import type { DecoderConfig } from './config.ts'
import { families } from './families.ts'
import { weightSpecs } from './weights.ts'

/**
 * Bytes of a micro-batch of `positions` tokens: what backward keeps of all blocks (the results of linear layers), and
 * what a run takes besides, estimated.
 */
export function activationBytes(
  config: DecoderConfig,
  positions: number,
): { readonly keptBytes: number; readonly otherBytes: number } {
  const widths = families[config.modelType].linears(config).map((linear) => linear.outFeatures)
  const perPosition = widths.reduce((total, width) => total + width, 0) + config.hiddenSize
  const parameters = weightSpecs(config).reduce((total, { shape }) => total + shape.reduce((n, size) => n * size, 1), 0)
  // Weights in 16 bits, the scratch space of one block and of the head.
  const scratch = 4 * config.hiddenSize * config.vocabSize + 40 * positions * perPosition
  return { keptBytes: 4 * positions * perPosition * config.numHiddenLayers, otherBytes: 2 * parameters + scratch }
}
