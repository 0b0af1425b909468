import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { writeSafetensors } from '../../formats/safetensors.ts'
import { bytesToF32 } from '../../util/dtype.ts'
import { modelCard } from './card.ts'
import {
  type AdapterTensor,
  loraTensorNames,
  readAdapter,
  readAdapterConfig,
  savedTensorName,
  writeAdapter,
} from './adapter.ts'
import type { LoraConfig } from './targets.ts'
import { elements } from '../../util/shape.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
})
afterEach(() => rm(folder, { recursive: true }))

const config: LoraConfig = {
  r: 2,
  loraAlpha: 4,
  targetModules: ['v_proj', 'q_proj'],
  excludeModules: undefined,
  loraDropout: 0.05,
  bias: 'none',
  useRslora: false,
  rankPattern: { v_proj: 1 },
  alphaPattern: {},
  layersToTransform: undefined,
  layersPattern: undefined,
  modulesToSave: undefined,
}
const q = loraTensorNames('model.layers.0.self_attn.q_proj')
const v = loraTensorNames('model.layers.0.self_attn.v_proj')
const tensor = (name: string, ...shape: number[]): AdapterTensor => ({
  name,
  shape,
  data: Float32Array.from({ length: elements(shape) }, (_, i) => i + 0.5),
})
const tensors = [tensor(q.a, 2, 3), tensor(q.b, 4, 2), tensor(v.a, 1, 3), tensor(v.b, 4, 1)]
const facts = [
  ['Training examples', 12],
  ['Odd | name', 'a\nb'],
] as const
const card = modelCard(config, { name: 'org/base' }, { facts })
const write = (changes: Partial<Parameters<typeof writeAdapter>[0]> = {}): Promise<void> =>
  writeAdapter({ folder, config, base: { name: 'org/base' }, tensors, files: new Map(), card, ...changes })

it('names tensors as PEFT does', () => {
  expect(q.a).toBe('base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight')
  expect(q.b).toBe('base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight')
  const bias = 'model.layers.0.self_attn.q_proj.bias'
  expect(savedTensorName(bias)).toBe(`base_model.model.${bias}`)
  expect(savedTensorName(bias, true)).toBe('base_model.model.model.layers.0.self_attn.q_proj.base_layer.bias')
  expect(savedTensorName('lm_head.weight')).toBe('base_model.model.lm_head.weight')
})

describe('writeAdapter', () => {
  it('writes what readAdapter reads', async () => {
    const out = join(folder, 'new', 'adapter')
    await write({ folder: out, files: new Map([['elsewhere.json', Buffer.from('{}')]]) })
    expect((await readdir(out)).sort()).toEqual([
      'README.md',
      'adapter_config.json',
      'adapter_model.safetensors',
      'elsewhere.json',
    ])
    const adapter = await readAdapter(out)
    expect(adapter.config).toEqual({ ...config, targetModules: ['q_proj', 'v_proj'] })
    expect(adapter.baseModel).toBe('org/base')
    expect(adapter.modules).toEqual(['model.layers.0.self_attn.q_proj', 'model.layers.0.self_attn.v_proj'])
    expect(adapter.tensors.metadata).toEqual({ format: 'pt' })
    expect(adapter.tensors.tensors.size).toBe(4)
    for (const { name, data, shape } of tensors) {
      expect(adapter.tensors.tensors.get(name)).toMatchObject({ dtype: 'F32', shape })
      expect(bytesToF32(await adapter.tensors.read(name), 'F32')).toEqual(data)
    }
    await adapter.tensors.close()
  })

  it('writes keys sorted, and all-linear as the names it stands for', async () => {
    await write({ config: { ...config, targetModules: 'all-linear' } })
    const text = await readFile(join(folder, 'adapter_config.json'), 'utf8')
    const json = JSON.parse(text) as Record<string, unknown>
    expect(Object.keys(json)).toEqual(Object.keys(json).sort())
    expect(json).toMatchObject({ peft_type: 'LORA', task_type: 'CAUSAL_LM', target_modules: ['q_proj', 'v_proj'] })
    expect(text).toMatch(/^\{\n {2}"alpha_pattern"/)
    expect(json).not.toHaveProperty('exclude_modules')
  })

  it('never leaves the weights of one adapter with the configuration of another', async () => {
    const files = async (): Promise<string[]> => (await readdir(folder)).sort()
    await write()
    const broken = [{ ...tensors[0]!, shape: [9, 9] }]
    await expect(write({ tensors: broken })).rejects.toThrow('bytes expected')
    // The same configuration: the old adapter is still whole.
    await (await readAdapter(folder)).tensors.close()
    await expect(write({ tensors: broken, config: { ...config, loraAlpha: 99 } })).rejects.toThrow('bytes expected')
    expect(await files()).toEqual(['README.md', 'adapter_model.safetensors'])
    await write({ config: { ...config, loraAlpha: 99 } })
    expect((await readAdapterConfig(folder)).config.loraAlpha).toBe(99)
  })

  it('writes a model card that names a base model from the hub, but not a path, in its front matter', async () => {
    await write()
    const text = await readFile(join(folder, 'README.md'), 'utf8')
    expect(text).toMatch(/^---\nbase_model: org\/base\nlibrary_name: peft\n/)
    expect(text).toContain('  - lora\n')
    expect(text).toContain('| Training examples | 12 |\n| Odd \\| name | a b |')
    const local = modelCard(config, { name: '/models/some base' }, { facts })
    expect(local).not.toContain('base_model:')
    expect(local).toContain('# LoRA adapter for some base')
    expect(local).toContain('from_pretrained("/models/some base")')
    // A folder of this machine, though a model of the hub may be called so.
    expect(modelCard(config, { name: 'src/model' }, { facts })).not.toContain('base_model:')
  })
})

describe('readAdapterConfig', () => {
  const configFile = (json: unknown): Promise<void> =>
    writeFile(join(folder, 'adapter_config.json'), typeof json === 'string' ? json : JSON.stringify(json))

  it('fills in the defaults of PEFT and passes over unknown and unset keys', async () => {
    const unset = { use_dora: false, layer_replication: null, target_parameters: [], megatron_config: {}, brand_new: 7 }
    await configFile({ peft_type: 'LORA', target_modules: '.*q_proj', layers_to_transform: null, ...unset })
    const { config, baseModel } = await readAdapterConfig(folder)
    expect(config).toMatchObject({ r: 8, loraAlpha: 8, targetModules: '.*q_proj', loraDropout: 0, bias: 'none' })
    expect(baseModel).toBeUndefined()
    await configFile({ peft_type: 'LORA', target_modules: ['q'], layers_to_transform: 3, layers_pattern: 'h' })
    expect((await readAdapterConfig(folder)).config).toMatchObject({ layersToTransform: [3], layersPattern: ['h'] })
  })

  it.each<[string, object | string, RegExp]>([
    ['another method', { peft_type: 'IA3' }, /"peft_type" is "IA3", which is not supported/],
    ['no method', { peft_type: undefined }, /"peft_type" is missing/],
    ['DoRA', { use_dora: true }, /"use_dora" is true, which is not supported/],
    ['a bias in B', { lora_bias: true }, /"lora_bias" is true/],
    ['repeated layers', { layer_replication: [[0, 4]] }, /"layer_replication" is \[\[0,4\]\]/],
    ['trained tokens', { trainable_token_indices: [1] }, /"trainable_token_indices"/],
    ['expert parameters', { target_parameters: ['w'] }, /"target_parameters"/],
    ['activated LoRA', { alora_invocation_tokens: [1] }, /"alora_invocation_tokens"/],
    ['a changed base', { init_lora_weights: 'pissa_niter_4' }, /"init_lora_weights" is "pissa_niter_4"/],
    ['targets that are a number', { target_modules: 3 }, /"target_modules": a list of names or one text is expected/],
    ['tied weights', { ensure_weight_tying: true }, /"ensure_weight_tying" is true, which is not supported/],
    ['a changed start', { corda_config: { cov: 1 } }, /"corda_config"/],
    ['a rank of 0', { r: 0 }, /"r": /],
    ['a huge rank', { r: 1e9 }, /"r": /],
    ['a rank of text', { rank_pattern: { q: '8' } }, /"rank_pattern.q": /],
    ['dropout of 1', { lora_dropout: 1 }, /"lora_dropout": /],
    ['an unknown bias', { bias: 'some' }, /"bias": /],
    ['a list', '[]', /a JSON object is expected/],
  ])('refuses %s', async (_, changes, message) => {
    await configFile(
      typeof changes === 'string' ? changes : { peft_type: 'LORA', target_modules: ['q_proj'], ...changes },
    )
    await expect(readAdapterConfig(folder)).rejects.toMatchObject({
      code: 'adapter',
      message: expect.stringMatching(message),
    })
  })
})

describe('readAdapter reads', () => {
  it('names with that of the adapter in them', async () => {
    await write({ tensors: tensors.map((one) => ({ ...one, name: one.name.replace('.weight', '.default.weight') })) })
    const adapter = await readAdapter(folder)
    expect(adapter.modules).toHaveLength(2)
    expect([...bytesToF32(await adapter.tensors.read(q.a), 'F32')]).toEqual([0.5, 1.5, 2.5, 3.5, 4.5, 5.5])
    await adapter.tensors.close()
  })

  it.each([
    ['no targets as PEFT chooses them', { target_modules: null }, { targetModules: ['q_proj', 'v_proj'] }],
    ['an empty pattern of layers as none', { layers_pattern: '' }, { layersPattern: undefined }],
  ])('%s', async (_, changes, expected) => {
    await writeFile(
      join(folder, 'adapter_config.json'),
      JSON.stringify({ peft_type: 'LORA', target_modules: ['q_proj'], ...changes }),
    )
    expect((await readAdapterConfig(folder)).config).toMatchObject(expected)
  })
})

describe('readAdapter refuses', () => {
  it.each<[string, AdapterTensor[], RegExp]>([
    ['A without B', [tensor(q.a, 2, 3)], /q_proj.lora_A.weight" has no lora_B/],
    ['B without A', [tensor(q.b, 4, 2)], /q_proj.lora_B.weight" has no lora_A/],
    ['a rank the configuration does not give', [tensor(v.a, 2, 3), tensor(v.b, 4, 2)], /\[2, 3\].*rank 1 needs/],
    ['shapes that do not fit', [tensor(q.a, 2, 3), tensor(q.b, 2, 4)], /rank 2 needs \[2, in\]/],
    ['DoRA', [tensor('base_model.model.a.lora_magnitude_vector', 4)], /kind of adapter that is not supported/],
    ['other names', [tensor('a.lora_A.weight', 2, 3)], /is not named as PEFT does/],
    ['no tensors', [], /has no LoRA tensors/],
  ])('%s', async (_, bad, message) => {
    await write({ tensors: bad })
    await expect(readAdapter(folder)).rejects.toMatchObject({
      code: 'adapter',
      message: expect.stringMatching(message),
    })
  })

  it.each<[string, (name: string) => string, RegExp]>([
    ['of a compiled model', (name) => `_orig_mod.${name}`, /is named as a compiled model names it/],
    ['of a compiled model inside', (name) => name.replace('model.model.', 'model._orig_mod.model.'), /compiled model/],
    ['wrapped twice', (name) => `base_model.model.${name}`, /was wrapped by PEFT twice/],
    ['of a decoder without head', (name) => name.replace('model.model.layers', 'model.layers'), /lacks the "model."/],
    ['without PEFT', (name) => name.replace('base_model.model.', ''), /is not named as PEFT does/],
  ])('names %s', async (_, rename, message) => {
    await write({ tensors: tensors.map((one) => ({ ...one, name: rename(one.name) })) })
    await expect(readAdapter(folder)).rejects.toThrow(message)
  })

  it('tensors that ZeRO-3 left empty', async () => {
    await write({ tensors: [tensor(q.a, 0), tensor(q.b, 0)] })
    await expect(readAdapter(folder)).rejects.toMatchObject({ hint: expect.stringContaining('ZeRO-3') as string })
  })

  it('adapters of mlx-lm, and folders of models', async () => {
    await writeFile(join(folder, 'adapter_config.json'), '{"fine_tune_type": "lora", "lora_parameters": {"rank": 8}}')
    await expect(readAdapter(folder)).rejects.toThrow('is an adapter of mlx-lm')
    await rm(join(folder, 'adapter_config.json'))
    await writeFile(join(folder, 'config.json'), '{}')
    await expect(readAdapter(folder)).rejects.toMatchObject({
      hint: expect.stringContaining('holds a model, not an adapter') as string,
    })
  })

  it('tensors that are no floats', async () => {
    await write()
    const data = new Uint8Array(6)
    await writeSafetensors(join(folder, 'adapter_model.safetensors'), [{ name: q.a, dtype: 'I8', shape: [2, 3], data }])
    await expect(readAdapter(folder)).rejects.toThrow('is I8; F32, F16, BF16, F64 are supported')
  })

  it('pickle files, and folders that hold no adapter', async () => {
    await expect(readAdapter(folder)).rejects.toThrow(/cannot read .*adapter_config.json/)
    await write()
    await rm(join(folder, 'adapter_model.safetensors'))
    await expect(readAdapter(folder)).rejects.toThrow('has no adapter_model.safetensors')
    await writeFile(join(folder, 'adapter_model.bin'), '')
    await expect(readAdapter(folder)).rejects.toMatchObject({ hint: expect.stringContaining('Pickle') })
  })
})
