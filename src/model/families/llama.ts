import { z } from 'zod'
import { attentionBias, family } from './describe.ts'
import { normedHead, preNormBlock } from './parts.ts'

/** Llama: grouped-query attention with rotary positions, SwiGLU, RMSNorm before each. Touvron et al. 2023. */
export const llama = family({
  models: 'Llama 2, 3, 3.1, 3.2; SmolLM and SmolLM 2; TinyLlama; others of this shape',
  fields: { attention_bias: attentionBias, mlp_bias: z.boolean().default(false) },
  describe: (c) => ({ biases: { qkv: c.attention_bias, output: c.attention_bias, mlp: c.mlp_bias } }),
  block: preNormBlock(),
  head: normedHead,
})
