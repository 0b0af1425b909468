import { z } from 'zod'
import type { BlockContext, DecoderConfig, Layers, Refuse } from '../decoder.ts'
import type { Value } from '../../graph/value.ts'
import {
  activationOf,
  attentionBias,
  family,
  headDim,
  heads,
  layerTypes,
  positions,
  positive,
  windowedLayers,
} from './describe.ts'
import { attention, type AttentionOptions, mlp, norm, normedHead, residual, wanted } from './parts.ts'

/** What Gemma 2 and 3 have in common. */
export const gemmaFields = {
  hidden_activation: z.string().default('gelu_pytorch_tanh'),
  num_key_value_heads: heads.nullable().default(4),
  head_dim: headDim.default(256),
  attention_bias: attentionBias,
  query_pre_attn_scalar: positive.default(256),
  sliding_window: positions.nullable().default(4096),
  layer_types: layerTypes,
  use_bidirectional_attention: z.boolean().nullish(),
  tie_word_embeddings: z.boolean().default(true),
}

/** Embedded tokens are scaled by sqrt(hidden), norms are stored around zero, scores and logits may be capped. */
export function describeGemma(
  c: z.output<z.ZodObject<typeof gemmaFields>> & {
    readonly attn_logit_softcapping?: number | null | undefined
    readonly final_logit_softcapping?: number | null | undefined
  },
  base: DecoderConfig,
  refuse: Refuse,
): Partial<DecoderConfig> {
  if (c.use_bidirectional_attention) refuse('"use_bidirectional_attention": true is not supported')
  const bias = c.attention_bias
  return {
    activation: activationOf('hidden_activation', c.hidden_activation, refuse),
    normOffset: 1,
    biases: { qkv: bias, output: bias, mlp: false },
    attentionScale: c.query_pre_attn_scalar ** -0.5,
    scoreCap: c.attn_logit_softcapping ?? undefined,
    logitCap: c.final_logit_softcapping ?? undefined,
    embeddingScale: Math.sqrt(base.hiddenSize),
  }
}

/** A block with norms before and after attention and MLP. */
export function sandwichBlock(options: AttentionOptions = {}) {
  return (layers: Layers, config: DecoderConfig, x: Value, context: BlockContext): Value => {
    const normed = (module: string, y: Value): Value => norm(layers, config, module, y)
    const attended = attention(layers, config, normed('input_layernorm', x), context, options)
    const h = residual(config, wanted(x, context), normed('post_attention_layernorm', attended))
    const fed = mlp(layers, config, normed('pre_feedforward_layernorm', h))
    return residual(config, h, normed('post_feedforward_layernorm', fed))
  }
}

/** Gemma 2: every other layer sees a window, scores and logits are capped. Gemma Team 2024. */
export const gemma2 = family({
  models: 'Gemma 2',
  fields: {
    ...gemmaFields,
    max_position_embeddings: positions.default(8192),
    attn_logit_softcapping: positive.nullable().default(50),
    final_logit_softcapping: positive.nullable().default(30),
  },
  describe: (c, base, refuse) => ({
    ...describeGemma(c, base, refuse),
    layers: windowedLayers(
      base,
      { window: c.sliding_window, types: c.layer_types, slides: (layer) => layer % 2 === 0 },
      refuse,
    ),
  }),
  block: sandwichBlock(),
  head: normedHead,
})
