import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openSafetensors, type TensorSource, writeSafetensors } from '../../formats/safetensors.ts'
import { adaptWithLora, checkAllUsed, readAdapterWeight } from './adapt.ts'
import { parseDecoderConfig } from '../config.ts'
import { loraTensorNames, readAdapter, writeAdapter } from './adapter.ts'
import type { LoraConfig } from './targets.ts'
import { randomWeights } from '../sources/checkpoint.ts'
import type { WeightSource } from '../sources/source.ts'
import { widened } from '../../storage/formats.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
})
afterEach(() => rm(folder, { recursive: true }))

function baseOf(tied: boolean): WeightSource {
  const json = {
    model_type: 'llama',
    hidden_size: 4,
    intermediate_size: 4,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    vocab_size: 3,
    tie_word_embeddings: tied,
  }
  return randomWeights(parseDecoderConfig(json, 'config.json'), 1)
}

const lora: LoraConfig = {
  r: 1,
  loraAlpha: 1,
  targetModules: ['q_proj'],
  loraDropout: 0,
  bias: 'none',
  useRslora: false,
}

const f32 = (name: string, shape: readonly number[], data: Float32Array): TensorSource => ({
  name,
  dtype: 'F32',
  shape,
  data: new Uint8Array(data.slice().buffer),
})

const modules = (...names: string[]): TensorSource[] =>
  names.flatMap((name) => {
    const { a, b } = loraTensorNames(`model.layers.0.self_attn.${name}`)
    return [f32(a, [1, 4], new Float32Array(4)), f32(b, [4, 1], new Float32Array(4))]
  })

/** Opens an adapter of these tensors on a base, and checks that all of them are used. */
async function check(base: WeightSource, tensors: readonly TensorSource[], config: LoraConfig = lora): Promise<void> {
  await writeAdapter({ folder, config, base: { name: 'base' }, tensors: [], files: new Map(), card: undefined })
  await writeSafetensors(join(folder, 'adapter_model.safetensors'), tensors)
  const adapter = await readAdapter(folder)
  try {
    await checkAllUsed(adapter, base, adaptWithLora(base, adapter.config, { loaded: true }))
  } finally {
    await adapter.tensors.close()
  }
}

const prefix = 'base_model.model.'
const embedding = 'model.embed_tokens.weight'

test('adapters of the modules that the configuration names, and what it says to be saved, are used', async () => {
  const saved = f32(`${prefix}${embedding}`, [3, 4], new Float32Array(12).fill(2))
  await check(baseOf(false), [...modules('q_proj'), saved], { ...lora, modulesToSave: ['embed_tokens'] })
})

test.each([true, false])(
  'copies of the base weights, as PEFT saves embeddings, change nothing (tied: %s)',
  async (tied) => {
    const base = baseOf(tied)
    const weights = ['model.embed_tokens.weight', tied ? embedding : 'lm_head.weight']
    const [embed, head] = await Promise.all(weights.map(async (name) => widened(await base.load(name)).data))
    await check(base, [
      ...modules('q_proj'),
      f32(`${prefix}${embedding}`, [3, 4], embed!),
      f32(`${prefix}lm_head.weight`, [3, 4], head!),
    ])
  },
)

test.each<[string, TensorSource[], RegExp, RegExp]>([
  [
    'adapters of modules that are no targets',
    modules('q_proj', 'v_proj'),
    /leaves out .*v_proj.lora_A/,
    /target_modules/,
  ],
  [
    'an embedding that differs',
    [f32(`${prefix}${embedding}`, [3, 4], new Float32Array(12))],
    /embed_tokens.weight \[3, 4\] is none of the weights that adapter_config.json asks for/,
    /add "embed_tokens" to modules_to_save/,
  ],
  [
    'a head that differs',
    [f32(`${prefix}lm_head.weight`, [3, 4], new Float32Array(12))],
    /lm_head.weight \[3, 4\] is none of/,
    /add "lm_head" to modules_to_save/,
  ],
  [
    'a resized embedding',
    [f32(`${prefix}${embedding}`, [5, 4], new Float32Array(20))],
    /embed_tokens.weight \[5, 4\] .* base model has it as \[3, 4\]/,
    /vocabulary was resized/,
  ],
  ['a norm', [f32(`${prefix}model.norm.weight`, [4], new Float32Array(4))], /model.norm.weight/, /"norm"/],
  [
    'what the model has not',
    [f32(`${prefix}score.weight`, [2], new Float32Array(2))],
    /score.weight/,
    /this base model/,
  ],
])('refused by name: %s', async (_, tensors, message, hint) => {
  const all = tensors.length > 2 ? tensors : [...modules('q_proj'), ...tensors]
  for (const tied of [true, false]) {
    await expect(check(baseOf(tied), all)).rejects.toMatchObject({
      code: 'adapter',
      message: expect.stringMatching(message) as string,
      hint: expect.stringMatching(hint) as string,
    })
  }
})

test('weights of an adapter in any float are read, and refused where they are no numbers', async () => {
  const path = join(folder, 'adapter_model.safetensors')
  const [name, shape] = ['a', [2]]
  const read = async (data: Uint8Array): Promise<unknown> => {
    await writeSafetensors(path, [{ name, dtype: 'F64', shape, data }])
    const reader = await openSafetensors(path)
    try {
      return (await readAdapterWeight(reader, { name, shape, folder })).data
    } finally {
      await reader.close()
    }
  }
  expect(await read(new Uint8Array(Float64Array.of(0.1, -2).buffer))).toEqual(Float32Array.of(0.1, -2))
  await expect(read(new Uint8Array(Float64Array.of(0.1, NaN).buffer))).rejects.toThrow(
    'tensor a holds NaN in element 1',
  )
})
