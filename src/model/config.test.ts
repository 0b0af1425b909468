import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { LowrankError } from '../util/errors.ts'
import type { DecoderConfig, Rope } from './decoder.ts'
import { parseDecoderConfig, readDecoderConfig } from './config.ts'

/** What transformers 5.23.0 writes: LlamaConfig(hidden_size=64, ..., rope_parameters=...).to_json_string(). */
const newer = {
  attention_bias: false,
  attention_dropout: 0.0,
  bos_token_id: 1,
  eos_token_id: 2,
  head_dim: 16,
  hidden_act: 'silu',
  hidden_size: 64,
  initializer_range: 0.02,
  intermediate_size: 128,
  max_position_embeddings: 2048,
  mlp_bias: false,
  model_type: 'llama',
  num_attention_heads: 4,
  num_hidden_layers: 2,
  num_key_value_heads: 2,
  pad_token_id: null,
  pretraining_tp: 1,
  rms_norm_eps: 1e-6,
  rope_parameters: {
    factor: 8.0,
    high_freq_factor: 4.0,
    low_freq_factor: 1.0,
    original_max_position_embeddings: 8192,
    rope_theta: 500000.0,
    rope_type: 'llama3',
  },
  tie_word_embeddings: false,
  transformers_version: '5.23.0',
  use_cache: true,
  vocab_size: 100,
}

/** The same model as older versions of transformers wrote it. */
const { rope_parameters: _, ...rest } = newer
const older = {
  ...rest,
  rope_theta: 500000.0,
  rope_scaling: {
    factor: 8.0,
    high_freq_factor: 4.0,
    low_freq_factor: 1.0,
    original_max_position_embeddings: 8192,
    rope_type: 'llama3',
  },
  torch_dtype: 'bfloat16',
}

const parse = (json: unknown): DecoderConfig => parseDecoderConfig(json, 'm/config.json')
const ropeOf = (json: unknown): Rope | undefined => parse(json).layers[0]?.rope

describe('config.json', () => {
  test('of newer and older versions of transformers says the same', () => {
    const rope = {
      theta: 500000,
      channels: 16,
      scaling: {
        type: 'llama3',
        factor: 8,
        lowFrequencyFactor: 1,
        highFrequencyFactor: 4,
        originalMaxPositions: 8192,
      },
    } as const
    const layer = { rope, window: undefined }
    const config: DecoderConfig = {
      modelType: 'llama',
      trunk: 'model',
      hiddenSize: 64,
      intermediateSize: 128,
      numHiddenLayers: 2,
      numAttentionHeads: 4,
      numKeyValueHeads: 2,
      headDim: 16,
      vocabSize: 100,
      maxPositionEmbeddings: 2048,
      rmsNormEps: 1e-6,
      layers: [layer, layer],
      activation: 'silu',
      normOffset: 0,
      biases: { qkv: false, output: false, mlp: false },
      attentionScale: 0.25,
      scoreCap: undefined,
      logitCap: undefined,
      embeddingScale: 1,
      multipliers: { input: 1, residual: 1, logits: 1 },
      tieWordEmbeddings: false,
      dropout: undefined,
      dtype: 'F32',
      initializerRange: 0.02,
      quantization: undefined,
    }
    expect(parse(newer)).toEqual(config)
    expect(parse(older)).toEqual({ ...config, dtype: 'BF16' })
    expect(parse({ ...newer, dtype: 'float16' }).dtype).toBe('F16')
  })

  test('may scale rotary positions linearly, or not at all, in either spelling', () => {
    const scaling = { type: 'linear', factor: 4 }
    expect(ropeOf({ ...rest, rope_scaling: scaling })).toEqual({ theta: 10000, channels: 16, scaling })
    const parameters = { rope_type: 'linear', factor: 4, rope_theta: 1e6 }
    expect(ropeOf({ ...rest, rope_parameters: parameters })).toEqual({ theta: 1e6, channels: 16, scaling })
    const none = { theta: 10000, channels: 16, scaling: { type: 'default' } }
    expect(ropeOf(rest)).toEqual(none)
    expect(ropeOf({ ...rest, rope_scaling: null })).toEqual(none)
    expect(ropeOf({ ...rest, rope_parameters: { rope_type: 'default', rope_theta: 10000 } })).toEqual(none)
  })

  test('may have both kinds of rope keys: rope_scaling counts, as in transformers, unless it is empty', () => {
    const rope_parameters = { rope_type: 'default', rope_theta: 5e5 }
    const scaling = { type: 'linear', factor: 4 }
    expect(ropeOf({ ...rest, rope_parameters, rope_scaling: scaling })).toEqual({ theta: 10000, channels: 16, scaling })
    expect(ropeOf({ ...rest, rope_parameters, rope_scaling: {} })?.theta).toBe(5e5)
  })

  test('may leave out the trained length of llama3 scaling: it is max_position_embeddings', () => {
    const rope_scaling = { ...llama3, original_max_position_embeddings: undefined }
    const rope = ropeOf({ ...rest, max_position_embeddings: 777, rope_scaling })
    expect(rope?.scaling).toMatchObject({ originalMaxPositions: 777 })
  })

  test('may name the activation swish, start from zeros, and spell dtypes as PyTorch prints them', () => {
    expect(parse({ ...rest, hidden_act: 'swish', initializer_range: 0 }).initializerRange).toBe(0)
    expect(parse({ ...rest, torch_dtype: 'torch.bfloat16' }).dtype).toBe('BF16')
  })

  test('may have keys of other families that change nothing', () => {
    const neutral = {
      sliding_window: null,
      layer_types: ['full_attention'],
      use_qk_norm: false,
      residual_multiplier: 1,
    }
    expect(parse({ ...rest, ...neutral, num_local_experts: 0, pretraining_tp: 2, use_cache: true })).toEqual(
      parse(rest),
    )
  })

  test('may leave out what follows from the rest', () => {
    const { head_dim: _d, num_key_value_heads: _k, tie_word_embeddings: _t, ...least } = rest
    expect(parse(least)).toMatchObject({ headDim: 16, numKeyValueHeads: 4, tieWordEmbeddings: false })
    // A head may be wider than its share of the hidden size.
    expect(parse({ ...rest, head_dim: 32 }).headDim).toBe(32)
  })
})

const llama3 = older.rope_scaling
describe('a bad config.json is refused, with the file and the field:', () => {
  test.each<[string, unknown, string | RegExp]>([
    ['no object', [1], 'm/config.json: the file: '],
    ['nothing in it', {}, /model_type: .*hidden_size: .*vocab_size: /],
    ['another family', { ...rest, model_type: 'gpt2' }, 'model_type "gpt2" is not supported (supported: llama'],
    ['no layers', { ...rest, num_hidden_layers: 0 }, 'num_hidden_layers: '],
    ['absurdly many layers', { ...rest, num_hidden_layers: 1e9 }, 'num_hidden_layers: '],
    ['an absurd vocabulary', { ...rest, vocab_size: 2 ** 40 }, 'vocab_size: '],
    ['half a head', { ...rest, num_attention_heads: 2.5 }, 'num_attention_heads: '],
    ['a size as text', { ...rest, hidden_size: '64' }, 'hidden_size: '],
    ['an epsilon of zero', { ...rest, rms_norm_eps: 0 }, 'rms_norm_eps: '],
    ['another activation', { ...rest, hidden_act: 'relu' }, 'hidden_act "relu" is not supported'],
    ['heads that share unevenly', { ...rest, num_key_value_heads: 3 }, '4 is not a multiple of num_key_value_heads 3'],
    ['more key heads than heads', { ...rest, num_key_value_heads: 8 }, 'not a multiple'],
    ['an odd head', { ...rest, head_dim: 15 }, 'a head has 15 channels'],
    ['a broken head', { ...rest, head_dim: null, hidden_size: 66 }, 'a head has 16.5 channels'],
    ['another scaling', { ...rest, rope_scaling: { type: 'ntk', factor: 2 } }, 'type "ntk" is not supported'],
    ['a scaling without its factor', { ...rest, rope_scaling: { type: 'linear' } }, 'type "linear" needs factor'],
    ['a scaling that shrinks', { ...rest, rope_scaling: { type: 'linear', factor: 0.5 } }, 'rope_scaling.factor: '],
    [
      'frequencies the wrong way round',
      { ...rest, rope_scaling: { ...llama3, low_freq_factor: 4 } },
      'low_freq_factor 4 must be below high_freq_factor 4',
    ],
    ['a part of each head rotated', { ...rest, partial_rotary_factor: 0.5 }, '"partial_rotary_factor": 0.5 is not'],
    [
      'the same among the rope parameters',
      { ...rest, rope_parameters: { rope_theta: 1e4, partial_rotary_factor: 0.5 } },
      'partial_rotary_factor 0.5 is not supported',
    ],
    [
      'rope parameters by kind of layer',
      { ...rest, rope_parameters: { full_attention: { rope_theta: 1e4 } } },
      'rope parameters of their own for "full_attention" layers are not supported',
    ],
    ['weights quantized by mlx-lm', { ...rest, quantization: { bits: 4, group_size: 64 } }, 'mlx-lm'],
    ...Object.entries({
      sliding_window: 4096,
      layer_types: ['full_attention', 'sliding_attention'],
      final_logit_softcapping: 30,
      attention_multiplier: 0.01,
      use_qk_norm: true,
      embedding_multiplier: 12,
      num_local_experts: 8,
    }).map(([key, value]): [string, unknown, string] => [
      `a key of another family, ${key}`,
      { ...rest, [key]: value },
      `"${key}": `,
    ]),
  ])('%s', (_name, json, message) => {
    const attempt = (): DecoderConfig => parse(json)
    expect(attempt).toThrow(LowrankError)
    expect(attempt).toThrow('m/config.json: ')
    expect(attempt).toThrow(message)
    expect(attempt).toThrow(expect.objectContaining({ code: 'model' }))
  })

  test.each([
    [{ model_type: 'qwen3_moe', num_local_experts: 128, num_experts_per_tok: 8 }, '("num_local_experts": 128)'],
    [{ model_type: 'qwen3_moe', num_experts: 128, num_experts_per_tok: 8 }, '("num_experts": 128)'],
    [{ model_type: 'olmoe', num_experts: 64, num_experts_per_tok: 8 }, '("num_experts": 64)'],
    [{ model_type: 'mixtral', num_local_experts: 8, num_experts_per_tok: 2 }, '("num_local_experts": 8)'],
    [{ model_type: 'deepseek_v3', n_routed_experts: 256 }, '("n_routed_experts": 256)'],
    [{ model_type: 'llama4', text_config: { num_local_experts: 16 } }, '("num_local_experts": 16)'],
    [{ model_type: 'qwen2_moe' }, '(model_type "qwen2_moe")'],
  ])('%j is a mixture of experts', (json, found) => {
    const attempt = (): DecoderConfig => parse({ ...rest, ...json })
    expect(attempt).toThrow(`model_type "${json.model_type}" is a mixture of experts ${found}, which is not supported`)
    // Not a model whose name is nearly the same.
    expect(attempt).toThrow(expect.objectContaining({ hint: expect.stringContaining('dense model') as string }))
  })

  test('a family that is nearly one gets a suggestion', () => {
    expect(() => parse({ ...rest, model_type: 'lama' })).toThrow(
      expect.objectContaining({ hint: 'Did you mean "llama"?' }),
    )
  })

  test('no file, and a file that is no JSON', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'lowrank-config-'))
    try {
      await expect(readDecoderConfig(folder)).rejects.toMatchObject({
        code: 'model',
        message: expect.stringContaining(join(folder, 'config.json')),
        hint: expect.stringContaining('A model folder holds config.json'),
      })
      writeFileSync(join(folder, 'config.json'), '{"model_type":')
      await expect(readDecoderConfig(folder)).rejects.toMatchObject({ code: 'model', message: /not valid JSON/ })
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

describe('the part for texts of a model of images', () => {
  /** As Google's files of Gemma 3 have it: what is as by default is left out. */
  const images = {
    model_type: 'gemma3',
    text_config: {
      hidden_size: 2560,
      intermediate_size: 10240,
      model_type: 'gemma3_text',
      num_hidden_layers: 34,
      rope_scaling: { factor: 8.0, rope_type: 'linear' },
      sliding_window: 1024,
    },
    torch_dtype: 'bfloat16',
    vision_config: { hidden_size: 1152 },
  }

  test('has the defaults of transformers', () => {
    const { layers, ...config } = parse(images)
    expect(config).toMatchObject({
      modelType: 'gemma3',
      trunk: 'model.language_model',
      vocabSize: 262208,
      numAttentionHeads: 8,
      numKeyValueHeads: 4,
      headDim: 256,
      tieWordEmbeddings: true,
      dtype: 'BF16',
    })
    expect(layers.map(({ window }) => window).slice(0, 7)).toEqual([1024, 1024, 1024, 1024, 1024, undefined, 1024])
    expect(layers[5]?.rope).toMatchObject({ theta: 1e6, scaling: { type: 'linear', factor: 8 } })
  })

  test.each([
    [{ text_config: undefined }, '"text_config" is not an object'],
    [{ tie_word_embeddings: false }, '"tie_word_embeddings" and that of "text_config" differ'],
    [
      { text_config: { ...images.text_config, model_type: 'llama' } },
      'text_config: model_type "llama" is not supported',
    ],
    [{ text_config: { ...images.text_config, num_experts: 8 } }, 'text_config: "num_experts": 8 is not supported'],
  ])('%j is refused', (changes, message) => {
    expect(() => parse({ ...images, ...changes })).toThrow(message)
  })
})
