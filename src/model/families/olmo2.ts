import { attentionBias, family, positive } from './describe.ts'
import { attention, mlp, norm, normedHead, residual, wanted } from './parts.ts'

/** OLMo 2: norms after attention and MLP, and of all queries and all keys. OLMo Team 2024. */
export const olmo2 = family({
  models: 'OLMo 2',
  fields: { attention_bias: attentionBias, rms_norm_eps: positive.default(1e-5) },
  describe: (c) => ({ biases: { qkv: c.attention_bias, output: c.attention_bias, mlp: false } }),
  block: (layers, config, x, context) => {
    const attended = attention(layers, config, x, context, { queryKeyNorm: 'all' })
    const h = residual(config, wanted(x, context), norm(layers, config, 'post_attention_layernorm', attended))
    return residual(config, h, norm(layers, config, 'post_feedforward_layernorm', mlp(layers, config, h)))
  },
  head: normedHead,
})
