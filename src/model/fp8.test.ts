import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { openSafetensors, type TensorReader, type TensorSource, writeSafetensors } from '../formats/safetensors.ts'
import { widened } from '../storage/formats.ts'
import { bf16ToF32, bytesToF32, float8Bits } from '../util/dtype.ts'
import { openFp8 } from './fp8.ts'
import { openWeights } from './sources/checkpoint.ts'

/* Weights in FP8 against PyTorch and transformers: see make_fp8_golden.py. */

const golden = fileURLToPath(new URL('../../test/golden/fp8', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'lowrank-fp8-'))
afterAll(() => rmSync(folder, { recursive: true }))

const f32 = async (reader: TensorReader, name: string): Promise<Float32Array> =>
  bytesToF32(await reader.read(name), 'F32')

test.each([
  ['e4m3', 'F8_E4M3'],
  ['e5m2', 'F8_E5M2'],
] as const)('all numbers of %s are those of PyTorch', async (name, dtype) => {
  const numbers = await openSafetensors(join(golden, 'numbers.safetensors'))
  expect(numbers.tensors.get(name)?.dtype).toBe(dtype)
  expect(await numbers.read(name)).toEqual(Uint8Array.from({ length: 256 }, (_, i) => i))
  // Signs of zeros and NaN too.
  expect(bf16ToF32(float8Bits(dtype))).toEqual(await f32(numbers, `${name}.f32`))
  await numbers.close()
})

test('blocks at the edges are cut', async () => {
  const reader = await openSafetensors(join(golden, 'edges.safetensors'))
  const specs = [{ name: 'weight', shape: [20, 13] }]
  const entry = openFp8(reader, { folder, specs, promised: { kind: 'fp8', block: [8, 4] } }).get('weight')
  expect((await entry?.load())?.data).toEqual(await f32(reader, 'f32'))
  await reader.close()
})

test('a model has the weights that transformers dequantizes it to', async () => {
  const [source, expected] = [await openWeights(golden), await openSafetensors(join(golden, 'expected.safetensors'))]
  expect(source.quantization).toBeUndefined()
  expect(source.specs).toHaveLength(expected.tensors.size)
  for (const { name } of source.specs) {
    const weight = await source.load(name)
    expect(weight.storage, name).toBe(name.endsWith('_proj.weight') ? 'F32' : 'BF16')
    expect(weight.storage).toBe(source.storage(name))
    expect(widened(weight).data, name).toEqual(await f32(expected, name))
    if (!name.endsWith('_proj.weight')) continue
    const again = await source.load(name, { ...widened(weight), data: widened(weight).data.fill(0) })
    expect(again).toMatchObject({ data: await f32(expected, name) })
    expect(widened(again).data).toBe(widened(weight).data)
  }
  await Promise.all([source.close(), expected.close()])
})

interface Changes {
  readonly quantization?: object | undefined
  readonly tensor?: (source: TensorSource) => TensorSource | undefined
}

let folders = 0
/** The model with another quantization_config, or none, and some tensors changed or (undefined) left out. */
async function changed({ quantization, tensor = (source) => source }: Changes): Promise<string> {
  const copy = join(folder, `${folders++}`)
  cpSync(golden, copy, { recursive: true })
  const { quantization_config: _, ...json } = JSON.parse(
    readFileSync(join(golden, 'config.json'), 'utf8'),
  ) as object & {
    quantization_config: object
  }
  writeFileSync(join(copy, 'config.json'), JSON.stringify({ ...json, quantization_config: quantization }))
  const reader = await openSafetensors(join(golden, 'model.safetensors'))
  const tensors = await Promise.all(
    [...reader.tensors].map(async ([name, { dtype, shape }]) =>
      tensor({ name, dtype, shape, data: await reader.read(name) }),
    ),
  )
  await writeSafetensors(
    join(copy, 'model.safetensors'),
    tensors.filter((one) => one !== undefined),
    { format: 'pt' },
  )
  await reader.close()
  return copy
}

const up = 'model.layers.0.mlp.up_proj.weight'
const isScale = (name: string): boolean => name.endsWith('_scale_inv')
const blocks = { quant_method: 'fp8', weight_block_size: [16, 16] }

test('weights without scales are the numbers themselves', async () => {
  const finite = Uint8Array.from({ length: 48 * 32 }, (_, i) => i & 0xbf)
  for (const dtype of ['F8_E4M3', 'F8_E5M2'] as const) {
    const model = await changed({
      tensor: (source) =>
        isScale(source.name) ? undefined : source.name === up ? { ...source, dtype, data: finite } : source,
    })
    const source = await openWeights(model)
    expect(source.storage(up)).toBe('BF16')
    const bits = float8Bits(dtype)
    const data = Uint16Array.from(finite, (code) => bits[code]!)
    expect(await source.load(up)).toEqual({ storage: 'BF16', shape: [48, 32], data })
    await source.close()
  }
})

test('one scale for each weight', async () => {
  const model = await changed({
    quantization: { ...blocks, weight_block_size: null },
    tensor: (source) =>
      isScale(source.name)
        ? { ...source, dtype: 'F32', shape: [], data: new Uint8Array(Float32Array.of(0.3).buffer) }
        : source,
  })
  const [source, reader] = [await openWeights(model), await openSafetensors(join(model, 'model.safetensors'))]
  const numbers = bf16ToF32(float8Bits('F8_E4M3'))
  const data = Float32Array.from(await reader.read(up), (code) => numbers[code]! * Math.fround(0.3))
  expect(await source.load(up)).toMatchObject({ data })
  await Promise.all([source.close(), reader.close()])
})

describe('refused by name', () => {
  const withScale = (change: Partial<TensorSource>): Changes => ({
    quantization: blocks,
    tensor: (source) => (source.name === `${up}_scale_inv` ? { ...source, ...change } : source),
  })
  test.each<[string, Changes, RegExp]>([
    [
      'activations with fixed scales',
      { quantization: { ...blocks, activation_scheme: 'static' } },
      /activation_scheme "static"/,
    ],
    [
      'scales that are exponents',
      { quantization: { ...blocks, scale_fmt: 'ue8m0' } },
      /scale_fmt "ue8m0" .*supported: float/,
    ],
    ['another method', { quantization: { quant_method: 'fbgemm_fp8' } }, /"fbgemm_fp8" are not supported/],
    ['blocks that are none', { quantization: { ...blocks, weight_block_size: [16] } }, /weight_block_size/],
    ['other blocks than there are', { quantization: { quant_method: 'fp8' } }, /F32 \[2, 2\].*128 x 128, \[1, 1\]/],
    [
      'scales that are missing',
      { quantization: blocks, tensor: (s) => (isScale(s.name) ? undefined : s) },
      /without .*_scale_inv/,
    ],
    ['scales of integers', withScale({ dtype: 'I32' }), /I32 \[3, 2\]/],
    ['scales that config.json says nothing of', {}, /_scale_inv" \[\d, \d\]/],
  ])('%s', async (_what, changes, message) => {
    await expect(changed(changes).then(openWeights)).rejects.toMatchObject({
      code: 'model',
      message: expect.stringMatching(message) as string,
    })
  })

  test('a scale that is not a number, when it is read', async () => {
    const data = new Uint8Array(Float32Array.of(1, 1, NaN, 1, 1, 1).buffer)
    const source = await openWeights(await changed(withScale({ data })))
    await expect(source.load(up)).rejects.toThrow(/up_proj.weight_scale_inv: found NaN in element 2/)
    await source.close()
  })

  test('a number that is none, when it is read', async () => {
    const source = await openWeights(
      await changed({
        tensor: (s) =>
          isScale(s.name) ? undefined : s.name === up ? { ...s, data: new Uint8Array(48 * 32).fill(127) } : s,
      }),
    )
    await expect(source.load(up)).rejects.toThrow(/NaN in element 0/)
    await source.close()
  })
})
