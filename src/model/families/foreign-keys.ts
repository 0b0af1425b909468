import { isJsonObject, type JsonObject } from '../../formats/json.ts'

/** Values of a key that leave the computation as it is, beside null and being left out. */
type Neutral = (value: unknown) => boolean

const off: Neutral = (value) => value === false || value === 0
const one: Neutral = (value) => value === 1
const absent: Neutral = () => false

/**
 * Keys of `config.json` that give a decoder another computation, in the families that know them. A checkpoint that has one may well go by
 * the name of a family that does not: such a model is refused, not approximated.
 */
const foreignKeys: Readonly<Record<string, Neutral>> = {
  // Attention to fewer positions, or in another way in some layers.
  sliding_window: absent,
  use_sliding_window: off,
  layer_types: (value) => Array.isArray(value) && value.every((type) => type === 'full_attention'),
  no_rope_layers: (value) => Array.isArray(value) && value.every((has) => has === 1),
  attention_chunk_size: absent,
  alibi: off,
  // What is done to scores and logits.
  attn_logit_softcapping: off,
  final_logit_softcapping: off,
  logit_softcapping: off,
  attention_multiplier: absent,
  query_pre_attn_scalar: absent,
  logits_scaling: one,
  logit_scale: one,
  // Norms of queries and keys.
  qk_norm: off,
  use_qk_norm: off,
  qk_layernorm: off,
  // Multipliers of embeddings, residuals and the like.
  embedding_multiplier: one,
  residual_multiplier: one,
  scale_emb: one,
  scale_depth: absent,
  dim_model_base: absent,
  // Rotation of a part of each head.
  partial_rotary_factor: one,
  rotary_pct: one,
  rope_local_base_freq: absent,
  // Experts.
  num_local_experts: off,
  num_experts: off,
  n_routed_experts: off,
  moe_intermediate_size: absent,
  // Clipped or otherwise changed projections.
  clip_qkv: absent,
}

/** Keys that say how many experts a model has. */
const expertCounts = ['num_local_experts', 'num_experts', 'n_routed_experts', 'moe_num_experts'] as const

/** How a config.json says that its model is a mixture of experts: `"num_experts": 128`, or by its name alone; undefined where it does not. */
export function expertsOf(json: JsonObject, modelType: string): string | undefined {
  const text = isJsonObject(json['text_config']) ? json['text_config'] : {}
  for (const key of expertCounts) {
    const count = json[key] ?? text[key]
    if (typeof count === 'number' && count > 1) return `"${key}": ${count}`
  }
  return /moe(_|$)|^mixtral$/.test(modelType) ? `model_type "${modelType}"` : undefined
}

/** The first key that changes the computation and is not among `known`, as it stands in the file: `"sliding_window": 4096`. */
export function foreignKey(json: JsonObject, known: ReadonlySet<string>): string | undefined {
  for (const [key, neutral] of Object.entries(foreignKeys)) {
    const value = json[key]
    if (known.has(key) || value === undefined || value === null || neutral(value)) continue
    return `"${key}": ${(JSON.stringify(value) ?? '').slice(0, 60)}`
  }
  return undefined
}
