import { b } from '../../graph/build.ts'
import { lastDim, type Value } from '../../graph/value.ts'
import { groupSize } from '../attention.ts'
import type { BlockContext, DecoderConfig, Layers, LinearPart } from '../decoder.ts'
import { splitLast } from '../layers.ts'

/*
 * What the blocks of families are made of.
 */

/** RMSNorm over the last axis of x. Zhang and Sennrich 2019. */
export function norm(layers: Layers, { rmsNormEps, normOffset }: DecoderConfig, module: string, x: Value): Value {
  const stored = layers.parameter(`${module}.weight`, [Number(lastDim(x.type))])
  return b.rmsNorm(x, normOffset === 0 ? stored : b.add(stored, b.constant(normOffset)), rmsNormEps)
}

/** The positions of x [batch, seq, n] that the rest of the block is computed for: all, or [rows, n]. */
export function wanted(x: Value, { rows }: BlockContext): Value {
  return rows === undefined ? x : b.takeRows(x, rows)
}

/** x + y, what a part of the block makes of x. */
export function residual({ multipliers }: DecoderConfig, x: Value, y: Value): Value {
  return b.add(x, b.scale(y, multipliers.residual))
}

export interface AttentionOptions {
  /** Whether one layer, `qkv_proj`, makes queries, keys and values. */
  readonly fused?: boolean
  /** Norms of queries and keys: of each head by itself, or of all heads as one vector. */
  readonly queryKeyNorm?: 'head' | 'all'
}

/**
 * Self-attention with grouped queries. The query heads that share a key head are laid along the sequence,
 * [batch, kv heads, group * seq, d], so that keys are never repeated and their gradients sum by themselves.
 */
export function attention(
  layers: Layers,
  config: DecoderConfig,
  x: Value,
  context: BlockContext,
  options: AttentionOptions = {},
): Value {
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim, biases } = config
  const { rope, attend } = context
  const group = groupSize(config)
  const [batch, seq] = ['batch', 'seq']
  const keyHeads = (y: Value): Value => b.transpose(b.reshape(y, [batch, seq, kvHeads, headDim]), [0, 2, 1, 3])
  const rotated = (y: Value, count: number): Value => (rope === undefined ? y : b.rope(y, rope.cos, rope.sin, count))

  const [projectedQ, projectedK, projectedV] = projections(layers, config, x, options)
  const q = rotated(queryKeyNorm(layers, config, 'q_norm', projectedQ, options), heads)
  const k = keyHeads(rotated(queryKeyNorm(layers, config, 'k_norm', projectedK, options), kvHeads))
  const v = keyHeads(projectedV)
  const queries = b.transpose(b.reshape(q, [batch, seq, kvHeads, group, headDim]), [0, 2, 3, 1, 4])
  const mixed = attend(queries, k, v)
  const joined = b.reshape(b.transpose(mixed, [0, 3, 1, 2, 4]), [batch, seq, heads * headDim])
  const output = { outFeatures: config.hiddenSize, bias: biases.output }
  return layers.linear('self_attn.o_proj', wanted(joined, context), output)
}

/** What each of some layers makes of the same x. */
function linears(layers: Layers, x: Value, parts: readonly LinearPart[]): readonly Value[] {
  return layers.linearsOf?.(x, parts) ?? parts.map(({ module, ...options }) => layers.linear(module, x, options))
}

/** Queries, keys and values of all heads, [batch, seq, heads * d] each. */
function projections(
  layers: Layers,
  { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim, biases }: DecoderConfig,
  x: Value,
  { fused = false }: AttentionOptions,
): readonly [Value, Value, Value] {
  const [qWidth, kvWidth] = [heads * headDim, kvHeads * headDim]
  const layer = (name: string, outFeatures: number): LinearPart => {
    return { module: `self_attn.${name}`, outFeatures, bias: biases.qkv }
  }
  const parts = fused
    ? [layer('qkv_proj', qWidth + 2 * kvWidth)]
    : [layer('q_proj', qWidth), layer('k_proj', kvWidth), layer('v_proj', kvWidth)]
  const made = linears(layers, x, parts)
  const [q = x, k = x, v = x] = fused ? splitLast(made[0] ?? x, [qWidth, kvWidth, kvWidth]) : made
  return [q, k, v]
}

function queryKeyNorm(
  layers: Layers,
  config: DecoderConfig,
  name: string,
  x: Value,
  { queryKeyNorm: over }: AttentionOptions,
): Value {
  if (over === undefined) return x
  const module = `self_attn.${name}`
  if (over === 'all') return norm(layers, config, module, x)
  const [batch = 0, seq = 0, width = 0] = x.type.shape
  const byHead = b.reshape(x, [batch, seq, Number(width) / config.headDim, config.headDim])
  return b.reshape(norm(layers, config, module, byHead), x.type.shape)
}

/** down(act(gate x) * up x); `fused`: one layer, `gate_up_proj`, makes both. Shazeer 2020. */
export function mlp(
  layers: Layers,
  config: DecoderConfig,
  x: Value,
  { fused = false }: { readonly fused?: boolean } = {},
): Value {
  const { intermediateSize: size, biases } = config
  const layer = (name: string, outFeatures: number): LinearPart => {
    return { module: `mlp.${name}`, outFeatures, bias: biases.mlp }
  }
  const parts = fused ? [layer('gate_up_proj', 2 * size)] : [layer('gate_proj', size), layer('up_proj', size)]
  const made = linears(layers, x, parts)
  const [gate = x, up = x] = fused ? splitLast(made[0] ?? x, [size, size]) : made
  const inner = b.gated(gate, up, config.activation)
  return layers.linear('mlp.down_proj', inner, { outFeatures: config.hiddenSize, bias: biases.mlp })
}

/** A block with a norm before attention and before the MLP, as in Llama. */
export function preNormBlock(options: AttentionOptions = {}) {
  return (layers: Layers, config: DecoderConfig, x: Value, context: BlockContext): Value => {
    const attended = attention(layers, config, norm(layers, config, 'input_layernorm', x), context, options)
    const h = residual(config, wanted(x, context), attended)
    return residual(config, h, mlp(layers, config, norm(layers, config, 'post_attention_layernorm', h), options))
  }
}

/** The last norm, [n, hidden] as its input. */
export function lastNorm(layers: Layers, config: DecoderConfig, rows: Value): Value {
  return norm(layers, config, `${config.trunk}.norm`, rows)
}

/** The last norm and the head: rows [n, hidden] -> logits [n, vocabulary]. */
export function normedHead(layers: Layers, config: DecoderConfig, rows: Value): Value {
  const { vocabSize: outFeatures, multipliers, logitCap } = config
  const products = layers.linear('lm_head', lastNorm(layers, config, rows), { outFeatures, bias: false })
  const logits = b.scale(products, multipliers.logits)
  return logitCap === undefined ? logits : b.softCap(logits, logitCap)
}
