import { family, heads, positions, windowedLayers } from './describe.ts'
import { normedHead, preNormBlock } from './parts.ts'

/** Mistral: Llama, whose layers may all see a sliding window. Jiang et al. 2023. */
export const mistral = family({
  models: 'Mistral 7B and Mistral Nemo',
  fields: {
    num_key_value_heads: heads.nullable().default(8),
    max_position_embeddings: positions.default(4096 * 32),
    sliding_window: positions.nullable().default(4096),
  },
  describe: (c, base, refuse) => ({
    layers: windowedLayers(
      base,
      { window: c.sliding_window, types: null, slides: () => c.sliding_window !== null },
      refuse,
    ),
  }),
  block: preNormBlock(),
  head: normedHead,
})
