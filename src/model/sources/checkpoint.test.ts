import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { writeSafetensors, type TensorDtype } from '../../formats/safetensors.ts'
import { parseDecoderConfig } from '../config.ts'
import { linearPaths, weightSpecs } from '../weight-specs.ts'
import { openWeights, randomWeights } from './checkpoint.ts'
import { widened } from '../../storage/formats.ts'
import { elements } from '../../util/shape.ts'

const json = {
  model_type: 'llama',
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 20,
  attention_bias: true,
  tie_word_embeddings: false,
  torch_dtype: 'float32',
}
const config = parseDecoderConfig(json, 'config.json')

describe('the weights of a decoder', () => {
  test('have the names and shapes of the hub', () => {
    const layer = (i: number): [string, number[]][] =>
      (
        [
          ['input_layernorm.weight', [8]],
          ['post_attention_layernorm.weight', [8]],
          ['self_attn.q_proj.weight', [8, 8]],
          ['self_attn.q_proj.bias', [8]],
          ['self_attn.k_proj.weight', [4, 8]],
          ['self_attn.k_proj.bias', [4]],
          ['self_attn.v_proj.weight', [4, 8]],
          ['self_attn.v_proj.bias', [4]],
          ['self_attn.o_proj.weight', [8, 8]],
          ['self_attn.o_proj.bias', [8]],
          ['mlp.gate_proj.weight', [12, 8]],
          ['mlp.up_proj.weight', [12, 8]],
          ['mlp.down_proj.weight', [8, 12]],
        ] as [string, number[]][]
      ).map(([name, shape]) => [`model.layers.${i}.${name}`, shape])
    expect(weightSpecs(config).map(({ name, shape }) => [name, shape])).toEqual([
      ['model.embed_tokens.weight', [20, 8]],
      ...layer(0),
      ...layer(1),
      ['model.norm.weight', [8]],
      ['lm_head.weight', [20, 8]],
    ])
  })

  test('have no head of their own where it is tied to the embedding', () => {
    const tied = weightSpecs({ ...config, tieWordEmbeddings: true })
    expect(tied).toEqual(weightSpecs(config).filter(({ name }) => name !== 'lm_head.weight'))
  })

  test('have seven linear layers a block, and the head', () => {
    const paths = linearPaths(config)
    expect(paths).toHaveLength(15)
    expect(paths[1]).toBe('model.layers.0.self_attn.k_proj')
    expect(paths[13]).toBe('model.layers.1.mlp.down_proj')
    expect(paths[14]).toBe('lm_head')
  })
})

describe('random weights', () => {
  const wide = parseDecoderConfig({ ...json, hidden_size: 64, vocab_size: 500, initializer_range: 0.05 }, 'config.json')
  const load = async (name: string, seed = 1): Promise<Float32Array> => {
    return widened(await randomWeights(wide, seed).load(name)).data
  }

  test('are normal with the standard deviation of config.json; norms are 1, biases 0', async () => {
    const embedding = await load('model.embed_tokens.weight')
    expect(embedding).toHaveLength(500 * 64)
    const mean = embedding.reduce((total, value) => total + value, 0) / embedding.length
    const variance = embedding.reduce((total, value) => total + (value - mean) ** 2, 0) / embedding.length
    // Four standard errors of 32,000 draws.
    expect(Math.abs(mean)).toBeLessThan(4 * (0.05 / Math.sqrt(32000)))
    expect(Math.abs(Math.sqrt(variance) / 0.05 - 1)).toBeLessThan(4 / Math.sqrt(64000))
    expect(new Set(await load('model.layers.1.input_layernorm.weight'))).toEqual(new Set([1]))
    expect(new Set(await load('model.norm.weight'))).toEqual(new Set([1]))
    expect(new Set(await load('model.layers.0.self_attn.q_proj.bias'))).toEqual(new Set([0]))
  })

  test('are the same for a seed, and differ between seeds and between weights', async () => {
    const [up, gate] = ['model.layers.0.mlp.up_proj.weight', 'model.layers.0.mlp.gate_proj.weight']
    expect(await load(up)).toEqual(await load(up))
    expect(await load(up)).not.toEqual(await load(up, 2))
    expect(await load(up)).not.toEqual(await load(gate))
  })
})

describe('a model folder', () => {
  const root = mkdtempSync(join(tmpdir(), 'lowrank-weights-'))
  afterAll(() => rmSync(root, { recursive: true }))
  let folders = 0

  /** A folder with every weight counting up from 0, some of them changed or (undefined) left out. */
  async function folder(
    changes: Readonly<Record<string, { readonly dtype?: TensorDtype; readonly shape?: readonly number[] } | undefined>>,
  ): Promise<string> {
    const path = mkdtempSync(join(root, `${folders++}-`))
    writeFileSync(join(path, 'config.json'), JSON.stringify(json))
    const tensors = weightSpecs(config)
      .filter(({ name }) => !(name in changes) || changes[name] !== undefined)
      .map(({ name, shape: own }) => {
        const { dtype = 'F32', shape = own } = changes[name] ?? {}
        const count = elements(shape)
        const values =
          dtype === 'F32' ? Float32Array.from({ length: count }, (_, i) => i) : new Uint16Array(count).fill(0x3f80)
        return { name, dtype, shape, data: new Uint8Array(values.buffer) }
      })
    await writeSafetensors(join(path, 'model.safetensors'), tensors, { format: 'pt' })
    return path
  }

  test('gives each weight as it is stored', async () => {
    const source = await openWeights(
      await folder({ 'model.norm.weight': { dtype: 'BF16' }, 'lm_head.weight': { dtype: 'F16' } }),
    )
    try {
      expect(await source.load('model.layers.0.self_attn.k_proj.bias')).toEqual({
        storage: 'F32',
        shape: [4],
        data: Float32Array.of(0, 1, 2, 3),
      })
      expect(await source.load('model.norm.weight')).toEqual({
        storage: 'BF16',
        shape: [8],
        data: new Uint16Array(8).fill(0x3f80),
      })
      expect(source.storage('lm_head.weight')).toBe('F16')
      expect(source.config).toEqual(config)
    } finally {
      await source.close()
    }
  })

  const up = 'model.layers.1.mlp.up_proj.weight'
  test.each([
    ['lacks a tensor', { [up]: undefined }, `the tensor ${up} that config.json asks for is not in the checkpoint`],
    [
      'has one transposed',
      { [up]: { shape: [8, 12] } },
      `tensor ${up} has shape [8, 12], but config.json asks for [12, 8]`,
    ],
    ['has one cut', { [up]: { shape: [12] } }, `tensor ${up} has shape [12], but config.json asks for [12, 8]`],
    [
      'has one of integers',
      { [up]: { dtype: 'I16' as const } },
      `tensor ${up} is I16; F32, F16, BF16, F8_E4M3 and F8_E5M2 are supported`,
    ],
  ])('that %s is refused before anything is loaded', async (_name, changes, message) => {
    await expect(openWeights(await folder(changes))).rejects.toMatchObject({
      name: 'LowrankError',
      code: 'model',
      message: expect.stringContaining(message),
    })
  })
})
