import { expect, test } from 'vitest'
import type { Storage } from '../storage/stored.ts'
import { parseDecoderConfig } from './config.ts'
import { buildStages } from './stages.ts'

const config = parseDecoderConfig(
  {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: 8,
    intermediate_size: 12,
    num_hidden_layers: 7,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    vocab_size: 16,
    max_position_embeddings: 32,
    rms_norm_eps: 1e-6,
  },
  'config.json',
)
const layerOf = (name: string): number => Number(/layers\.(\d+)\./.exec(name)?.[1])
const isAdapter = (name: string): boolean => name.includes('.lora_')
/** Layer 3 has no adapter, layer 4 another rank, layer 5 other weights. */
const storage = (name: string): Storage =>
  isAdapter(name) ? 'F32' : layerOf(name) === 5 && name.endsWith('up_proj.weight') ? { kind: 'int8' } : 'BF16'
const adapterOf = (path: string): { r: number; scale: number; dropout: number } | undefined =>
  path.endsWith('q_proj') && layerOf(path) !== 3 ? { r: layerOf(path) === 4 ? 4 : 2, scale: 1, dropout: 0 } : undefined

test('blocks share programs where they differ in names only', () => {
  const { blocks } = buildStages({ config, policy: { storage, trainable: isAdapter }, adapterOf, activations: 'keep' })
  expect(blocks).toHaveLength(7)
  for (const [index, { parameters, gradients }] of blocks.entries()) {
    for (const { name, storage: held, trainable } of parameters) {
      expect(layerOf(name)).toBe(index)
      expect(held).toEqual(storage(name))
      expect(trainable).toBe(isAdapter(name))
    }
    const ranks = parameters.filter(({ name }) => name.endsWith('lora_A.weight')).map(({ shape }) => shape[0])
    expect(ranks).toEqual(index === 3 ? [] : [index === 4 ? 4 : 2])
    expect(gradients.map(({ name }) => layerOf(name))).toEqual(index === 3 ? [] : [index, index])
  }
  const [first, second, third, , , , last] = blocks.map(({ backward }) => backward)
  expect(third).toBe(second)
  // The first hands no gradient on; of the last, rows without a label are left out.
  expect(first).not.toBe(second)
  expect(last).not.toBe(second)
  expect(new Set(blocks.map(({ forward }) => forward)).size).toBe(6)
})
