import { architectures } from '../../formats/gguf/architectures.ts'
import type { TypedValue } from '../../formats/gguf/values.ts'
import { type TestTensor, writeGguf } from '../../formats/gguf/writer.fixture.ts'
import { dequantizeBlocks } from '../../storage/gguf/index.ts'
import { quantizeQ6 } from '../../storage/gguf/quantize.fixture.ts'
import { quantizeBlocks } from '../../storage/gguf/quantize.ts'
import { widened } from '../../storage/formats.ts'
import type { WeightSource } from './source.ts'

/** The names of a block's modules in a file, by those of a hub model. */
const modules = new Map([
  ['model.embed_tokens', 'token_embd'],
  ['model.norm', 'output_norm'],
  ['lm_head', 'output'],
  ['input_layernorm', 'attn_norm'],
  ['post_attention_layernorm', 'ffn_norm'],
  ...['q', 'k', 'v'].map((one) => [`self_attn.${one}_proj`, `attn_${one}`] as const),
  ['self_attn.o_proj', 'attn_output'],
  ...['gate', 'up', 'down'].map((one) => [`mlp.${one}_proj`, `ffn_${one}`] as const),
])

/** What is read of the config.json of a Llama. */
export interface LlamaJson {
  readonly hidden_size: number
  readonly intermediate_size: number
  readonly num_hidden_layers: number
  readonly num_attention_heads: number
  readonly num_key_value_heads: number
  readonly head_dim?: number
  readonly rms_norm_eps: number
  readonly rope_theta: number
  readonly max_position_embeddings: number
}

export interface LlamaGguf {
  readonly config: LlamaJson
  /** How matrices are stored; the rest is f32. */
  readonly matrices: 'F32' | 'Q8_0'
  /** How the embedding and the head are stored, where that is otherwise. */
  readonly head?: 'Q6_K' | undefined
  readonly metadata?: Readonly<Record<string, TypedValue>>
  /** A weight that is not written. */
  readonly without?: string
}

const quantizers = {
  F32: { width: 1, quantize: (data: Float32Array) => new Uint8Array(data.slice().buffer) },
  Q8_0: { width: 32, quantize: (data: Float32Array) => quantizeBlocks('Q8_0', data) },
  Q6_K: { width: 256, quantize: quantizeQ6 },
}

/** Writes the weights of a Llama as the converter of llama.cpp does; returns them, by the names of the hub, with the values that they have there. */
export async function writeLlamaGguf(
  file: string,
  source: WeightSource,
  { config, matrices, head, metadata = {}, without }: LlamaGguf,
): Promise<{ name: string; shape: readonly number[]; data: Float32Array }[]> {
  const tensors: TestTensor[] = []
  const written: { name: string; shape: readonly number[]; data: Float32Array }[] = []
  for (const { name, shape } of source.specs.filter((spec) => spec.name !== without)) {
    const { data } = widened(await source.load(name))
    const [, block, module = '', kind = ''] = /^(?:model\.layers\.(\d+)\.)?(.*)\.(weight|bias)$/.exec(name) ?? []
    const stored = `${block === undefined ? '' : `blk.${block}.`}${modules.get(module)}.${kind}`
    const heads = /attn_q/.test(stored)
      ? config.num_attention_heads
      : /attn_k/.test(stored)
        ? config.num_key_value_heads
        : 0
    const type = shape.length < 2 ? 'F32' : block === undefined && head !== undefined ? head : matrices
    const { width, quantize } = quantizers[type]
    if ((shape[1] ?? 1) % width !== 0) throw new Error(`${name}: rows of ${shape[1]} are no blocks`)
    const bytes = quantize(data)
    const values = type === 'F32' ? data : dequantizeBlocks(type, bytes, new Float32Array(data.length))
    written.push({ name, shape, data: values.slice() })
    const ordered = heads === 0 ? bytes : interleaved(bytes, shape[0] ?? 0, heads)
    tensors.push({ name: stored, type, shape, data: ordered })
  }
  writeGguf(file, { metadata: { ...metadataOf(config), ...metadata }, tensors })
  return written
}

/** Rows in the order of llama.cpp: those of the two halves of a head by turns. */
function interleaved(bytes: Uint8Array, rows: number, heads: number): Uint8Array {
  const [width, half] = [bytes.length / rows, rows / heads / 2]
  const out = new Uint8Array(bytes.length)
  for (let row = 0; row < rows; row++) {
    const [head, place] = [Math.floor(row / (2 * half)), row % (2 * half)]
    const from = head * 2 * half + (place % 2) * half + Math.floor(place / 2)
    out.set(bytes.subarray(from * width, (from + 1) * width), row * width)
  }
  return out
}

function metadataOf(config: LlamaJson): Record<string, TypedValue> {
  const name = Object.keys(architectures)[0] ?? ''
  const numbers = {
    block_count: config.num_hidden_layers,
    context_length: config.max_position_embeddings,
    embedding_length: config.hidden_size,
    feed_forward_length: config.intermediate_size,
    'attention.head_count': config.num_attention_heads,
    'attention.head_count_kv': config.num_key_value_heads,
    'attention.key_length': config.head_dim ?? config.hidden_size / config.num_attention_heads,
  }
  return {
    'general.architecture': ['text', name],
    ...Object.fromEntries(
      Object.entries(numbers).map(([key, value]) => [`${name}.${key}`, ['u32', value] as TypedValue]),
    ),
    [`${name}.rope.freq_base`]: ['f32', config.rope_theta],
    [`${name}.attention.layer_norm_rms_epsilon`]: ['f32', config.rms_norm_eps],
  }
}
