import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type TensorSource, writeSafetensors } from '../../formats/safetensors.ts'
import { isFloat } from '../../storage/stored.ts'
import { parseDecoderConfig } from '../config.ts'
import { embeddingName, headName } from '../names.ts'
import { weightSpecs } from '../weight-specs.ts'
import { openWeights } from './checkpoint.ts'
import type { WeightSource } from './source.ts'
import { elements } from '../../util/shape.ts'

const embedding = embeddingName({ trunk: 'model' })

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
})
afterEach(() => rm(folder, { recursive: true }))

const config = {
  model_type: 'llama',
  hidden_size: 4,
  intermediate_size: 4,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  vocab_size: 3,
  tie_word_embeddings: true,
}

const tensor = (name: string, shape: readonly number[], first: number): TensorSource => {
  const data = new Float32Array(elements(shape)).fill(1)
  data[0] = first
  return { name, dtype: 'F32', shape, data: new Uint8Array(data.buffer) }
}

const head = (first: number): TensorSource => tensor(headName, [3, 4], first)

/** Opens a tied model of one layer, whose tensors are changed by `change`. The first element of each is its place in the list. */
async function open(change: (tensors: TensorSource[]) => TensorSource[], changes: object = {}): Promise<WeightSource> {
  const json = { ...config, ...changes }
  const specs = weightSpecs(parseDecoderConfig(json, 'config.json'))
  const tensors = specs.map(({ name, shape }, i) => tensor(name, shape, i))
  await writeSafetensors(join(folder, 'model.safetensors'), change(tensors))
  await writeFile(join(folder, 'config.json'), JSON.stringify(json))
  return openWeights(folder)
}

async function firstOf(source: WeightSource, name: string): Promise<number | undefined> {
  const weight = await source.load(name)
  return isFloat(weight) ? weight.data[0] : undefined
}

const renamed = (tensors: TensorSource[], to: (name: string) => string): TensorSource[] =>
  tensors.map((one) => ({ ...one, name: to(one.name) }))

test('names without "model." are those of the decoder alone', async () => {
  const source = await open((tensors) => renamed(tensors, (name) => name.replace(/^model\./, '')))
  expect(await firstOf(source, 'model.norm.weight')).toBe(source.specs.length - 1)
  await source.close()
})

test('so are they beside a head that is not tied', async () => {
  const source = await open((tensors) => renamed(tensors, (name) => name.replace(/^model\./, '')), {
    tie_word_embeddings: false,
  })
  expect(await firstOf(source, headName)).toBe(source.specs.length - 1)
  expect(await firstOf(source, embedding)).toBe(0)
  await source.close()
})

test('a tied model may be saved with its head only', async () => {
  const source = await open((tensors) => renamed(tensors, (name) => (name === embedding ? headName : name)))
  expect(source.config.tieWordEmbeddings).toBe(true)
  expect(await firstOf(source, embedding)).toBe(0)
  await source.close()
})

test('a tied model may hold its head twice', async () => {
  const source = await open((tensors) => [...tensors, head(0)])
  expect(source.config.tieWordEmbeddings).toBe(true)
  await source.close()
})

test('a head that differs from the embedding is used, whatever config.json says', async () => {
  const source = await open((tensors) => [...tensors, head(9)])
  expect(source.config.tieWordEmbeddings).toBe(false)
  expect(await firstOf(source, headName)).toBe(9)
  await source.close()
})

test.each([
  'model.layers.0.self_attn.rotary_emb.inv_freq',
  'model.rotary_emb.inv_freq',
  'model.layers.0.mlp.up_proj.weight.absmax',
  'model.layers.0.mlp.up_proj.SCB',
])('%s, which adds nothing new, may be there', async (name) => {
  await (await open((tensors) => [...tensors, tensor(name, [2], 0)])).close()
})

test('a tensor without elements may be there', async () => {
  await (await open((tensors) => [...tensors, tensor('empty', [0, 7], 0)])).close()
})

test.each([
  ['a norm of queries', 'model.layers.0.self_attn.q_norm.weight'],
  ['a bias that config.json does not mention', 'model.layers.0.self_attn.q_proj.bias'],
  ['a layer more', 'model.layers.1.mlp.up_proj.weight'],
  ['a head by another name', 'output.weight'],
  ['an encoder', 'vision_tower.blocks.0.weight'],
  ['the scales of another quantizer', 'model.layers.0.mlp.up_proj.weight_scale'],
  ['an adapter', 'model.layers.0.mlp.up_proj.lora_A.weight'],
  ['scales of a weight that is not there', 'model.layers.7.mlp.up_proj.weight.absmax'],
])('%s is refused by name', async (_what, name) => {
  await expect(open((tensors) => [...tensors, tensor(name, [2], 0)])).rejects.toMatchObject({
    code: 'model',
    message: expect.stringContaining(`holds "${name}" [2], which`) as string,
  })
})

test('of many, one is named and the others are counted', async () => {
  const more = ['a', 'b', 'c'].map((name) => tensor(name, [1], 0))
  await expect(open((tensors) => [...tensors, ...more])).rejects.toThrow('holds "a" [1] and 2 more tensors, which')
})
