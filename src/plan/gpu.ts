import type { DecoderConfig } from '../model/decoder.ts'
import { linearSpecs } from '../model/weight-specs.ts'
import type { DecoderStages } from '../model/stages.ts'
import type { PreparedDecoder } from '../session/decoder.ts'
import type { MemoryItem, Workload } from '../session/memory-items.ts'
import { storageBytes } from '../storage/formats.ts'
import { isFloatStorage } from '../storage/stored.ts'
import { elements } from '../util/shape.ts'

/** What CUDA, cuBLAS and the kernels of PyTorch take before a tensor is there. */
const contextBytes = 800e6

/** In words: what the figures for another machine are made of. */
export const gpuFormula =
  'an estimate for PyTorch, not measured: frozen weights in bf16 (or as quantized); trained ones in f32 with a gradient in f32 and what the ' +
  'optimizer keeps; kept of each layer 2 bytes for each position times (6 hidden + inputs and outputs of its linear layers), or 2 hidden ' +
  'with checkpoints and one layer at a time; logits of all positions, 10 bytes each; 800 MB for CUDA'

/** What a run takes of a GPU, by `gpuFormula`. `checkpoints`: activations are computed again in the backward pass. */
export function gpuItems(
  decoder: PreparedDecoder,
  stages: DecoderStages,
  { training, stateBytes }: Workload,
  { checkpoints }: { readonly checkpoints: boolean },
): MemoryItem[] {
  const { config } = decoder
  const wanted = decoder.wanted(stages)
  const trained = wanted.filter(({ trainable }) => trainable)
  const frozen = wanted.filter(({ trainable }) => !trainable)
  const count = trained.reduce((total, { shape }) => total + elements(shape), 0)
  const weights = frozen.reduce(
    (total, { storage, shape }) =>
      total + (isFloatStorage(storage) ? 2 * elements(shape) : storageBytes(storage, shape)),
    0,
  )
  const optimizer = trained.reduce((total, { name, shape }) => total + stateBytes(name, elements(shape)), 0)
  const positions = training === undefined ? 0 : training.batch * training.seq
  const layer = 2 * positions * layerWidth(config)
  const layers = config.layers.length
  return [
    { what: 'base weights', bytes: weights },
    { what: 'trained weights', bytes: 4 * count },
    { what: 'gradients', bytes: 4 * count },
    { what: 'optimizer', bytes: optimizer },
    { what: 'activations', bytes: checkpoints ? 2 * positions * config.hiddenSize * layers + layer : layers * layer },
    { what: 'logits', bytes: 10 * positions * config.vocabSize },
    { what: 'CUDA', bytes: contextBytes },
  ].filter(({ bytes }) => bytes > 0)
}

/** Numbers that the backward pass of a layer reads of a position, where attention is computed without its matrix of scores. */
function layerWidth(config: DecoderConfig): number {
  const linears = linearSpecs(config).reduce(
    (total, { inFeatures, outFeatures }) => total + inFeatures + outFeatures,
    0,
  )
  return 6 * config.hiddenSize + linears
}
