import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { JsonObject } from '../json.ts'
import { architectures, conversionOf, hubName } from './architectures.ts'
import { configOf } from './config.ts'
import { GgufFile } from './file.ts'
import type { TypedValue } from './values.ts'
import { type TestTensor, writeGguf } from './writer.fixture.ts'
import { elements } from '../../util/shape.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
})
afterAll(() => rm(folder, { recursive: true }))

const smallest: Readonly<Record<string, TypedValue>> = {
  'general.architecture': ['text', 'llama'],
  'llama.block_count': ['u32', 2],
  'llama.context_length': ['u32', 128],
  'llama.embedding_length': ['u32', 32],
  'llama.feed_forward_length': ['u32', 64],
  'llama.attention.head_count': ['u32', 4],
  'llama.attention.layer_norm_rms_epsilon': ['f32', 1e-5],
}

const floats = (name: string, shape: readonly number[], values: readonly number[] = []): TestTensor => {
  const data = Float32Array.from({ length: elements(shape) }, (_, i) => values[i] ?? 0)
  return { name, type: 'F32', shape, data: new Uint8Array(data.buffer) }
}

/** The configuration of the smallest model with some metadata (undefined: without) and tensors. */
async function configWith(
  changes: Readonly<Record<string, TypedValue | undefined>> = {},
  tensors: readonly TestTensor[] = [],
): Promise<JsonObject> {
  const metadata = Object.fromEntries(
    Object.entries({ ...smallest, ...changes }).filter((one): one is [string, TypedValue] => one[1] !== undefined),
  )
  const path = writeGguf(join(folder, 'model.gguf'), {
    metadata,
    tensors: [floats('token_embd.weight', [10, 32]), ...tensors],
  })
  const file = await GgufFile.open(path)
  try {
    return await configOf(file)
  } finally {
    await file.close()
  }
}

test('the least that a file must say', async () => {
  expect(await configWith()).toEqual({
    model_type: 'llama',
    hidden_size: 32,
    intermediate_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 4,
    head_dim: 8,
    vocab_size: 10,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: true,
    torch_dtype: 'float32',
  })
})

test.each<[key: string, value: TypedValue | undefined, message: string]>([
  ['general.architecture', undefined, 'the metadata has no general.architecture'],
  ['general.architecture', ['text', 'mamba'], 'general.architecture "mamba" is not supported (supported: llama, '],
  ['general.architecture', ['text', 'toString'], 'general.architecture "toString" is not supported'],
  ['general.architecture', ['u32', 1], 'metadata general.architecture is "1"; a text is expected'],
  ['llama.block_count', undefined, 'the metadata has no llama.block_count'],
  ['llama.block_count', ['u32', 4294967295], 'metadata llama.block_count is 4294967295'],
  ['split.count', ['u16', 3], 'is one of 3 parts of a model'],
  ['llama.attention.head_count_kv', ['list', 'u32', [1, 2]], 'head_count_kv differs from layer to layer'],
  ['llama.attention.value_length', ['u32', 4], 'attention.value_length is 4, but that of keys is 8'],
  ['llama.attention.causal', ['bool', false], 'attention.causal is false'],
  ['llama.expert_count', ['u32', 8], 'metadata llama.expert_count is "8", which is not supported'],
  ['llama.attention.sliding_window', ['u32', 512], 'metadata llama.attention.sliding_window is "512", which'],
  ['llama.rope.dimension_count', ['u32', 2 ** 31], 'metadata llama.rope.dimension_count is 2147483648'],
  ['llama.rope.scaling.type', ['text', 'spiral'], 'metadata llama.rope.scaling.type is "spiral"'],
  ['llama.rope.scaling.attn_factor', ['f32', 2], 'metadata llama.rope.scaling.attn_factor is 2'],
  ['llama.rope.scaling.yarn_log_multiplier', ['f32', 0.1], 'metadata llama.rope.scaling.yarn_log_multiplier is 0.1'],
])('%s %j is refused', async (key, value, message) => {
  await expect(configWith({ [key]: value })).rejects.toMatchObject({
    code: 'model',
    message: expect.stringContaining(message) as string,
  })
})

test('what changes nothing is passed over', async () => {
  const neutral: Readonly<Record<string, TypedValue>> = {
    'llama.vocab_size': ['u32', 10],
    'llama.expert_count': ['u32', 0],
    'llama.attention.clamp_kqv': ['f32', 0],
    'llama.attention.head_count_kv': ['list', 'i32', [2, 2]],
    'llama.rope.scaling.finetuned': ['bool', true],
    'general.file_type': ['u32', 7],
    'other.expert_count': ['u32', 7],
  }
  expect(await configWith(neutral)).toEqual({ ...(await configWith()), num_key_value_heads: 2 })
})

test('a factor without a type is a linear one; one without an effect is none', async () => {
  const factor = (value: number): Record<string, TypedValue> => ({ 'llama.rope.scaling.factor': ['f32', value] })
  expect(await configWith(factor(2.5))).toMatchObject({ rope_scaling: { rope_type: 'linear', factor: 2.5 } })
  expect(await configWith(factor(1))).not.toHaveProperty('rope_scaling')
  expect(await configWith({ ...factor(4), 'llama.rope.scaling.type': ['text', 'none'] })).not.toHaveProperty(
    'rope_scaling',
  )
  expect(await configWith({ 'llama.rope.scale_linear': ['f32', 8] })).toMatchObject({
    rope_scaling: { rope_type: 'linear', factor: 8 },
  })
})

test('factors of frequencies that follow no known rule are taken one by one', async () => {
  expect(await configWith({}, [floats('rope_freqs.weight', [4], [1, 1.5, 3.2, 8])])).toMatchObject({
    rope_scaling: {
      rope_type: 'longrope',
      short_factor: [1, 1.5, 3.2, 8],
      long_factor: [1, 1.5, 3.2, 8],
      original_max_position_embeddings: 128,
      attention_factor: 1,
    },
  })
  await expect(
    configWith({ 'llama.rope.scaling.factor': ['f32', 2] }, [floats('rope_freqs.weight', [4], [1, 1, 2, 8])]),
  ).rejects.toThrow('llama.rope.scaling.factor is 2, beside factors for each frequency')
})

test('names of tensors', () => {
  const { llama, gemma2, phi3 } = architectures
  expect(hubName(llama!, 'blk.11.attn_q.weight')).toBe('model.layers.11.self_attn.q_proj.weight')
  expect(hubName(gemma2!, 'blk.0.ffn_norm.weight')).toBe('model.layers.0.pre_feedforward_layernorm.weight')
  expect(hubName(phi3!, 'blk.0.ffn_up.weight')).toBe('model.layers.0.mlp.gate_up_proj.weight')
  for (const name of ['blk.0.ffn_up_exps.weight', 'blk.0.toString.weight', 'output.scale', 'blk.x.attn_q.weight', '']) {
    expect(hubName(llama!, name)).toBeUndefined()
  }
  expect(conversionOf(llama!, 'blk.0.attn_k.bias')).toEqual({ interleaved: 'keys', offset: 0 })
  expect(conversionOf(gemma2!, 'output_norm.weight')).toEqual({ interleaved: undefined, offset: 1 })
  expect(conversionOf(gemma2!, 'blk.0.attn_q.weight')).toEqual({ interleaved: undefined, offset: 0 })
})
