import { attentionBias, family, headDim } from './describe.ts'
import { normedHead, preNormBlock } from './parts.ts'
import { qwenFields, qwenLayers } from './qwen2.ts'

/** Qwen 3, dense: Llama with norms of each query and key. Yang et al. 2025. */
export const qwen3 = family({
  models: 'Qwen 3, dense',
  fields: { ...qwenFields, attention_bias: attentionBias, head_dim: headDim.nullable().default(128) },
  describe: (c, base, refuse) => ({
    biases: { qkv: c.attention_bias, output: c.attention_bias, mlp: false },
    layers: qwenLayers(c, base, refuse),
  }),
  block: preNormBlock({ queryKeyNorm: 'head' }),
  head: normedHead,
})
