import { z } from 'zod'
import {
  attentionBias,
  checkLength,
  family,
  heads,
  layerTypes,
  positions,
  positive,
  windowedLayers,
} from './describe.ts'
import { normedHead, preNormBlock } from './parts.ts'

/** SmolLM 3: Llama, of whose layers every fourth knows of no positions. Bakouch et al. 2025. */
export const smollm3 = family({
  models: 'SmolLM 3',
  fields: {
    num_key_value_heads: heads.nullable().default(4),
    max_position_embeddings: positions.default(32768),
    rope_theta: positive.default(2e6),
    attention_bias: attentionBias,
    mlp_bias: z.boolean().default(false),
    use_sliding_window: z.boolean().default(false),
    sliding_window: positions.nullish(),
    no_rope_layers: z.array(z.union([z.literal(0), z.literal(1)])).nullish(),
    no_rope_layer_interval: z.int().min(1).default(4),
    layer_types: layerTypes,
    tie_word_embeddings: z.boolean().default(true),
  },
  describe: (c, base, refuse) => {
    checkLength('no_rope_layers', c.no_rope_layers, base, refuse)
    const rotates = (i: number): boolean =>
      c.no_rope_layers ? c.no_rope_layers[i] === 1 : (i + 1) % c.no_rope_layer_interval !== 0
    const without = { rope: undefined, window: undefined }
    const layers = base.layers.map((kind, i) => (rotates(i) ? kind : without))
    const window = (c.use_sliding_window ? c.sliding_window : undefined) ?? undefined
    const slides = (i: number): boolean => window !== undefined && !rotates(i)
    return {
      biases: { qkv: c.attention_bias, output: c.attention_bias, mlp: c.mlp_bias },
      layers: windowedLayers({ ...base, layers }, { window, types: c.layer_types, slides }, refuse),
    }
  },
  block: preNormBlock(),
  head: normedHead,
})
