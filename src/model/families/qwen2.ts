import { z } from 'zod'
import type { DecoderConfig, LayerKind, Refuse } from '../decoder.ts'
import { family, heads, layerTypes, positions, windowedLayers } from './describe.ts'
import { normedHead, preNormBlock } from './parts.ts'

/** What Qwen 2 and 3 say of windows. */
export const qwenFields = {
  num_key_value_heads: heads.nullable().default(32),
  max_position_embeddings: positions.default(32768),
  use_sliding_window: z.boolean().default(false),
  sliding_window: positions.nullable().default(4096),
  max_window_layers: z.int().min(0).default(28),
  layer_types: layerTypes,
}

/** Layers from `max_window_layers` on see a window, if any do. */
export function qwenLayers(
  c: z.output<z.ZodObject<typeof qwenFields>>,
  base: DecoderConfig,
  refuse: Refuse,
): LayerKind[] {
  const window = c.use_sliding_window ? c.sliding_window : null
  const slides = (layer: number): boolean => window !== null && layer >= c.max_window_layers
  return windowedLayers(base, { window, types: c.layer_types, slides }, refuse)
}

/** Qwen 2 and 2.5: Llama with biases for queries, keys and values. Yang et al. 2024. */
export const qwen2 = family({
  models: 'Qwen 2, Qwen 2.5',
  fields: qwenFields,
  describe: (c, base, refuse) => ({
    biases: { qkv: true, output: false, mlp: false },
    layers: qwenLayers(c, base, refuse),
  }),
  block: preNormBlock(),
  head: normedHead,
})
