import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { openCheckpoint } from '../formats/safetensors.ts'
import { bytesToF32, type FloatDtype } from '../util/dtype.ts'
import { saveResult, type SaveOptions } from './save.ts'

let folder: string
let base: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
  base = join(folder, 'base')
  await mkdir(base)
})
afterEach(() => rm(folder, { recursive: true }))

const values = { 'a.weight': [1, 2, 3], 'b.weight': [0.1, 1e-9, 65504] }

async function options(config: string, changes: Partial<SaveOptions> = {}): Promise<SaveOptions> {
  const trainables = Object.entries(values).map(([name, numbers]) => {
    const data = Float32Array.from(numbers)
    return [name, { name, shape: [3], data, gradient: new Float32Array(3) }] as const
  })
  return {
    folder: join(folder, 'out'),
    trainables: new Map(trainables),
    base: { name: 'base', config, companions: new Map([['tokenizer.json', Buffer.from('{}')]]) },
    lora: undefined,
    fileName: (name) => name,
    storage: () => 'F32',
    saveDtype: 'auto',
    maxShardSize: 5e9,
    facts: [],
    ...changes,
  }
}

async function dtypesIn(path: string): Promise<(string | undefined)[]> {
  const reader = await openCheckpoint(path)
  const found = Object.keys(values).map((name) => reader.tensors.get(name)?.dtype)
  for (const [i, name] of Object.keys(values).entries()) {
    const stored = bytesToF32(await reader.read(name), found[i] as FloatDtype)
    const expected = values[name as keyof typeof values]
    if (found[i] === 'F32') expect([...stored]).toEqual([...Float32Array.from(expected)])
    else expect(Math.abs(stored[0]! - expected[0]!)).toBeLessThan(1e-3)
  }
  await reader.close()
  return found
}

const configOf = async (path: string): Promise<unknown> =>
  JSON.parse(await readFile(join(path, 'config.json'), 'utf8')) as unknown

it.each([
  ['auto', 'F32', 'float32'],
  ['f32', 'F32', 'float32'],
  ['bf16', 'BF16', 'bfloat16'],
  ['f16', 'F16', 'float16'],
] as const)('a whole model stored as %s says so', async (saveDtype, dtype, torchName) => {
  const config = '{"torch_dtype": "bfloat16", "rope_theta": 10000.0, "quantization_config": {"load_in_4bit": true}}'
  const saved = await options(config, { saveDtype })
  await saveResult(saved)
  expect(await dtypesIn(saved.folder)).toEqual([dtype, dtype])
  expect(await configOf(saved.folder)).toEqual({ torch_dtype: torchName, rope_theta: 10000 })
  expect(await readFile(join(saved.folder, 'config.json'), 'utf8')).toContain('"rope_theta": 10000.0')
})

it('the dtype has the name that it has in the base, and a new one where there is none', async () => {
  const saved = await options('{"dtype": "float32"}', { saveDtype: 'f16' })
  await saveResult(saved)
  expect(await configOf(saved.folder)).toEqual({ dtype: 'float16' })
  await saveResult(await options('{"hidden_size": 8}', { saveDtype: 'bf16' }))
  expect(await configOf(saved.folder)).toEqual({ hidden_size: 8, torch_dtype: 'bfloat16' })
})

it('weights of two dtypes stay so, and config.json as it was', async () => {
  const storage = (name: string): FloatDtype => (name === 'a.weight' ? 'BF16' : 'F32')
  const config = '{"torch_dtype": "float32", "quantization_config": {}}'
  const saved = await options(config, { storage })
  await saveResult(saved)
  expect(await dtypesIn(saved.folder)).toEqual(['BF16', 'F32'])
  expect(await configOf(saved.folder)).toEqual({ torch_dtype: 'float32' })
})

it('a model above the maximal size is split into shards', async () => {
  const saved = await options('{}', { maxShardSize: 12 })
  await saveResult(saved)
  expect((await readdir(saved.folder)).sort()).toEqual([
    'config.json',
    'model-00001-of-00002.safetensors',
    'model-00002-of-00002.safetensors',
    'model.safetensors.index.json',
    'tokenizer.json',
  ])
  expect(await dtypesIn(saved.folder)).toEqual(['F32', 'F32'])
})

it('numbers too large for the dtype asked for are refused, and widened in a checkpoint', async () => {
  const trainables = new Map([
    ['a', { name: 'a', shape: [2], data: Float32Array.of(1, 70000), gradient: new Float32Array(2) }],
  ])
  const saved = await options('{}', { saveDtype: 'f16', trainables })
  await expect(saveResult(saved)).rejects.toMatchObject({
    code: 'config',
    message: 'saveDtype: element 1 of a is 70000, too large for F16',
  })
  expect(await readdir(saved.folder)).toEqual([])
  await saveResult({ ...saved, widenLarge: true })
  const reader = await openCheckpoint(saved.folder)
  expect(reader.tensors.get('a')?.dtype).toBe('F32')
  await reader.close()
})

it('what was trained to infinity is stored as such', async () => {
  const trainables = new Map([
    ['a', { name: 'a', shape: [1], data: Float32Array.of(Infinity), gradient: new Float32Array(1) }],
  ])
  const saved = await options('{}', { saveDtype: 'f16', trainables })
  await saveResult(saved)
  expect(await readdir(saved.folder)).toContain('model.safetensors')
})
