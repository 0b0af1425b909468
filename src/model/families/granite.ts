import { z } from 'zod'
import { attentionBias, family, positive } from './describe.ts'
import { normedHead, preNormBlock } from './parts.ts'

/** Granite 3: Llama with factors of embedded tokens, scores, what a block adds, and logits. Granite Team 2024. */
export const granite = family({
  models: 'Granite 3, dense',
  fields: {
    attention_bias: attentionBias,
    mlp_bias: z.boolean().default(false),
    embedding_multiplier: positive.default(1),
    residual_multiplier: positive.default(1),
    attention_multiplier: positive.default(1),
    logits_scaling: positive.default(1),
  },
  describe: (c) => ({
    biases: { qkv: c.attention_bias, output: c.attention_bias, mlp: c.mlp_bias },
    attentionScale: c.attention_multiplier,
    multipliers: { input: c.embedding_multiplier, residual: c.residual_multiplier, logits: 1 / c.logits_scaling },
  }),
  block: preNormBlock(),
  head: normedHead,
})
