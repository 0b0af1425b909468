import { b } from '../../graph/build.ts'
import { product } from '../../graph/dims.ts'
import { only as firstOf, type Value } from '../../graph/value.ts'
import type { DecoderConfig } from '../decoder.ts'
import type { BlockContext, Decoder, Layers } from '../decoder.ts'

/** Llama: grouped-query attention with rotary positions, SwiGLU, RMSNorm before each. Touvron et al. 2023. */
export const llama: Decoder = {
  linears: (c) => {
    const [hidden, ffn] = [c.hiddenSize, c.intermediateSize]
    const [q, kv] = [c.numAttentionHeads * c.headDim, c.numKeyValueHeads * c.headDim]
    const attention = (name: string, inFeatures: number, outFeatures: number) =>
      ({ module: `self_attn.${name}`, inFeatures, outFeatures, bias: c.attentionBias }) as const
    const mlp = (name: string, inFeatures: number, outFeatures: number) =>
      ({ module: `mlp.${name}`, inFeatures, outFeatures, bias: c.mlpBias }) as const
    return [
      attention('q_proj', hidden, q),
      attention('k_proj', hidden, kv),
      attention('v_proj', hidden, kv),
      attention('o_proj', q, hidden),
      mlp('gate_proj', hidden, ffn),
      mlp('up_proj', hidden, ffn),
      mlp('down_proj', ffn, hidden),
    ]
  },
  block: (layers, config, x, context) => {
    const h = b.add(wanted(x, context), attention(layers, config, norm(layers, config, 'input_layernorm', x), context))
    return b.add(h, mlp(layers, config, norm(layers, config, 'post_attention_layernorm', h)))
  },
  head: (layers, config, rows) => {
    const normed = norm(layers, config, 'model.norm', rows)
    return layers.linear('lm_head', normed, { outFeatures: config.vocabSize, bias: false })
  },
}

/** The positions of x [batch, seq, n] that the rest of the block is computed for: all, or [rows, n]. */
function wanted(x: Value, { rows }: BlockContext): Value {
  return rows === undefined ? x : b.takeRows(x, rows)
}

function norm(layers: Layers, config: DecoderConfig, module: string, x: Value): Value {
  return b.rmsNorm(x, layers.parameter(`${module}.weight`, [config.hiddenSize]), config.rmsNormEps)
}

/**
 * Attention(Q, K, V) = softmax(Q KT / sqrt(d) + mask) V, causal. The query heads that share a key head are laid along the sequence,
 * [batch, kv heads, group * seq, d], so that keys are never repeated and their gradients sum by themselves.
 */
function attention(layers: Layers, config: DecoderConfig, x: Value, context: BlockContext): Value {
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim, attentionBias: bias } = config
  const { cos, sin, sizes, parts } = context
  const group = heads / kvHeads
  const [batch, seq] = ['batch', 'seq']
  const project = (name: string, count: number): Value =>
    layers.linear(`self_attn.${name}`, x, { outFeatures: count * headDim, bias })
  const keyHeads = (y: Value): Value => b.transpose(b.reshape(y, [batch, seq, kvHeads, headDim]), [0, 2, 1, 3])

  const q = b.rope(project('q_proj', heads), cos, sin, heads)
  const k = keyHeads(b.rope(project('k_proj', kvHeads), cos, sin, kvHeads))
  const v = keyHeads(project('v_proj', kvHeads))
  const queries = b.transpose(b.reshape(q, [batch, seq, kvHeads, group, headDim]), [0, 2, 3, 1, 4])
  const queryParts = b.split(queries, sizes, { axis: 3, parts: parts.map((part) => part.queries) })
  const mixedParts = parts.map(({ keys, cut, mask }, i) => {
    const seen = (heads: Value): Value =>
      cut === undefined ? heads : firstOf(b.split(heads, cut, { axis: 2, parts: [keys, `after ${keys}`] }))
    return attend(queryParts[i] ?? queries, seen(k), seen(v), mask)
  })
  const mixed = b.concat(mixedParts, sizes, { axis: 3, whole: seq })
  const joined = b.reshape(b.transpose(mixed, [0, 3, 1, 2, 4]), [batch, seq, heads * headDim])
  return layers.linear('self_attn.o_proj', wanted(joined, context), { outFeatures: config.hiddenSize, bias })
}

/** Queries [batch, kv heads, group, n, d] over keys and values [batch, kv heads, m, d] -> the shape of the queries. */
function attend(queries: Value, keys: Value, values: Value, mask: Value): Value {
  const [batch = 0, kvHeads = 0, group = 0, n = 0, headDim = 0] = queries.type.shape
  const m = keys.type.shape[2] ?? 0
  const rows = b.reshape(queries, [batch, kvHeads, product([group, n]), headDim])
  const scores = b.matmul(rows, keys, { transB: true, alpha: 1 / Math.sqrt(Number(headDim)) })
  const masked = b.add(b.reshape(scores, [batch, kvHeads, group, n, m]), mask)
  const weights = b.reshape(b.softmax(masked), scores.type.shape)
  return b.reshape(b.matmul(weights, values), queries.type.shape)
}

/** SwiGLU: down(silu(gate x) * up x). Shazeer 2020. */
function mlp(layers: Layers, config: DecoderConfig, x: Value): Value {
  const { intermediateSize: outFeatures, mlpBias: bias } = config
  const gate = layers.linear('mlp.gate_proj', x, { outFeatures, bias })
  const up = layers.linear('mlp.up_proj', x, { outFeatures, bias })
  return layers.linear('mlp.down_proj', b.mul(b.silu(gate), up), { outFeatures: config.hiddenSize, bias })
}
