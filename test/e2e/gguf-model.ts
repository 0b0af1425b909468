import { cpSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { architectures } from '../../src/formats/gguf/architectures.ts'
import { type TestTensor, type TypedValue, writeGguf } from '../../src/formats/gguf/writer.fixture.ts'
import { writeSafetensors } from '../../src/formats/safetensors.ts'
import { openWeights } from '../../src/model/sources/checkpoint.ts'
import { dequantizeBlocks } from '../../src/storage/gguf/index.ts'
import { quantizeQ8 } from '../../src/storage/gguf/quantize.fixture.ts'
import { widened } from '../../src/storage/formats.ts'
import { readJson } from './support.ts'

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

interface HubConfig {
  readonly hidden_size: number
  readonly intermediate_size: number
  readonly num_hidden_layers: number
  readonly num_attention_heads: number
  readonly num_key_value_heads: number
  readonly rms_norm_eps: number
  readonly rope_theta: number
  readonly max_position_embeddings: number
}

/**
 * Makes of a Llama folder with the tokenizer of the quickstart a GGUF file in Q8_0, as the converter of llama.cpp does, and a folder of the
 * same weights in f32.
 */
export async function writeAsGguf(model: string, file: string, folder: string): Promise<void> {
  const config = readJson(join(model, 'config.json')) as HubConfig
  const source = await openWeights(model)
  const tensors: TestTensor[] = []
  const same: { name: string; shape: readonly number[]; data: Uint8Array }[] = []
  for (const { name, shape } of source.specs) {
    const { data } = widened(await source.load(name))
    const [, block, module = '', kind = ''] = /^(?:model\.layers\.(\d+)\.)?(.*)\.(weight|bias)$/.exec(name) ?? []
    const stored = `${block === undefined ? '' : `blk.${block}.`}${modules.get(module)}.${kind}`
    const heads = /attn_q/.test(stored)
      ? config.num_attention_heads
      : /attn_k/.test(stored)
        ? config.num_key_value_heads
        : 0
    const width = shape[1] ?? 1
    const packed = shape.length === 2 ? quantizeQ8(data) : undefined
    const values = packed === undefined ? data : dequantizeBlocks('Q8_0', packed, new Float32Array(data.length))
    same.push({ name, shape, data: new Uint8Array(values.slice().buffer) })
    const bytes = packed ?? new Uint8Array(data.slice().buffer)
    tensors.push({
      name: stored,
      type: packed === undefined ? 'F32' : 'Q8_0',
      shape,
      data: heads === 0 ? bytes : interleaved(bytes, shape[0] ?? 0, heads),
    })
    if (packed !== undefined && width % 32 !== 0) throw new Error(`${name}: rows of ${width} are no blocks`)
  }
  await source.close()
  writeGguf(file, { metadata: { ...metadataOf(config), ...tokenizerOf(model) }, tensors })
  mkdirSync(folder)
  for (const name of readdirSync(model).filter((one) => one.endsWith('.json') && !/^(run|adapter)/.test(one))) {
    cpSync(join(model, name), join(folder, name))
  }
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, torch_dtype: 'float32' }))
  await writeSafetensors(
    join(folder, 'model.safetensors'),
    same.map((one) => ({ ...one, dtype: 'F32' })),
  )
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

function metadataOf(config: HubConfig): Record<string, TypedValue> {
  const name = Object.keys(architectures)[0] ?? ''
  const numbers = {
    block_count: config.num_hidden_layers,
    context_length: config.max_position_embeddings,
    embedding_length: config.hidden_size,
    feed_forward_length: config.intermediate_size,
    'attention.head_count': config.num_attention_heads,
    'attention.head_count_kv': config.num_key_value_heads,
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

function tokenizerOf(model: string): Record<string, TypedValue> {
  const { model: bpe } = readJson(join(model, 'tokenizer.json')) as {
    readonly model: { readonly vocab: Record<string, number>; readonly merges: readonly (string | readonly string[])[] }
  }
  const tokens = Object.entries(bpe.vocab).toSorted(([, a], [, b]) => a - b)
  return {
    'tokenizer.ggml.model': ['text', 'gpt2'],
    'tokenizer.ggml.pre': ['text', 'gpt-2'],
    'tokenizer.ggml.tokens': ['list', 'text', tokens.map(([token]) => token)],
    'tokenizer.ggml.token_type': ['list', 'i32', tokens.map((_, id) => (id === 0 ? 3 : 1))],
    'tokenizer.ggml.merges': [
      'list',
      'text',
      bpe.merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' '))),
    ],
    'tokenizer.ggml.eos_token_id': ['u32', 0],
  }
}
