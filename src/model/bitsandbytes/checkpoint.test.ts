import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Quantization } from '../../config/index.ts'
import { writeCheckpoint } from '../../formats/checkpoint.ts'
import { openSafetensors, type TensorDtype, type TensorSource } from '../../formats/safetensors.ts'
import { quantizeFourBit } from '../../storage/fourbit.ts'
import { quantizeWeight, quantizedWeights } from '../sources/quantized.ts'
import { withQuantizationConfig } from './config.ts'
import { savedTensors } from './save.ts'
import { openWeights } from '../sources/checkpoint.ts'
import type { WeightSource } from '../sources/source.ts'
import { widened } from '../../storage/formats.ts'
import { elements } from '../../util/shape.ts'

const golden = fileURLToPath(new URL('../../../test/golden/', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'lowrank-quantized-'))
afterAll(() => rmSync(folder, { recursive: true }))

interface Tensor {
  readonly dtype: TensorDtype
  readonly shape: readonly number[]
  readonly data: Uint8Array
}
type Tensors = Map<string, Tensor>

let copies = 0

/** A copy of a golden checkpoint with some of its tensors and of its config.json changed. */
async function changed(
  name: string,
  change: (tensors: Tensors) => void,
  { config = (text) => text, maxShardBytes = 1e9 }: { config?: (text: string) => string; maxShardBytes?: number } = {},
): Promise<string> {
  const copy = join(folder, `${name}-${copies++}`)
  cpSync(join(golden, name), copy, { recursive: true, filter: (path) => !path.endsWith('.safetensors') })
  writeFileSync(join(copy, 'config.json'), config(readFileSync(join(copy, 'config.json'), 'utf8')))
  const reader = await openSafetensors(join(golden, name, 'model.safetensors'))
  const tensors: Tensors = new Map()
  for (const { name: key, dtype, shape } of reader.tensors.values()) {
    tensors.set(key, { dtype, shape, data: await reader.read(key) })
  }
  await reader.close()
  change(tensors)
  const sources = [...tensors].map(([key, tensor]): TensorSource => ({ name: key, ...tensor }))
  await writeCheckpoint(copy, sources, { maxShardBytes })
  return copy
}

async function errorOf(copy: string): Promise<Error & { hint?: string }> {
  try {
    const source = await openWeights(copy)
    try {
      for (const { name } of source.specs) await source.load(name)
    } finally {
      await source.close()
    }
  } catch (error) {
    expect(error).toMatchObject({ name: 'LowrankError', code: 'model' })
    return error as Error
  }
  throw new Error('nothing was thrown')
}

const weight = 'model.layers.1.mlp.up_proj.weight'
const scales = 'model.layers.1.mlp.up_proj.SCB'
const state = `${weight}.quant_state.bitsandbytes__nf4`

function u8(data: Uint8Array): Tensor {
  return { dtype: 'U8', shape: [data.length], data }
}

function f32(...values: number[]): Tensor {
  return { dtype: 'F32', shape: [values.length], data: new Uint8Array(Float32Array.from(values).buffer) }
}

function get(tensors: Tensors, name: string): Tensor {
  const tensor = tensors.get(name)
  if (tensor === undefined) throw new Error(`no ${name}`)
  return tensor
}

/** Changes the JSON that describes the weight. */
function describing(changes: object): (tensors: Tensors) => void {
  return (tensors) => {
    const json = JSON.parse(Buffer.from(get(tensors, state).data).toString()) as object
    tensors.set(state, u8(Buffer.from(JSON.stringify({ ...json, ...changes }))))
  }
}

/** Changes one number of a tensor of f32. */
function patched(name: string, index: number, value: number): (tensors: Tensors) => void {
  return (tensors) => {
    const { data } = get(tensors, name)
    new DataView(data.buffer, data.byteOffset).setFloat32(4 * index, value, true)
  }
}

const cases: [string, (tensors: Tensors) => void, string, RegExp][] = [
  ['a block size that is none', describing({ blocksize: 48 }), state, /found blocksize 48, .*expected.*32.*4096/i],
  [
    'another block size than the scales are for',
    describing({ blocksize: 128 }),
    `${weight}.absmax`,
    /is U8 \[84\]; expected U8 with 42 elements, a scale for each 128 of 5376/,
  ],
  ['no scales', (t) => t.delete(`${weight}.absmax`), `${weight}.absmax`, /is missing; expected U8 with 84 elements/],
  [
    'too few scales',
    (t) => t.set(`${weight}.absmax`, u8(new Uint8Array(83))),
    `${weight}.absmax`,
    /is U8 \[83\]; expected U8 with 84 elements/,
  ],
  [
    'scales of scales of another size',
    (t) => t.set(`${weight}.nested_absmax`, f32(1, 2)),
    'nested_absmax',
    /F32 \[2\]/,
  ],
  [
    'plain scales where nested ones are promised',
    (t) => {
      t.delete(`${weight}.nested_absmax`)
      t.set(`${weight}.absmax`, f32(...new Array<number>(84).fill(1)))
    },
    weight,
    /found double quantization false, expected true, as config.json says \(bnb_4bit_use_double_quant\)/,
  ],
  ['scales that are no numbers', patched(`${weight}.nested_absmax`, 0, NaN), 'nested_absmax', /found NaN in element 0/],
  [
    'a quantization type that is not known',
    (t) => {
      t.set(`${weight}.quant_state.bitsandbytes__nf3`, get(t, state))
      t.delete(state)
    },
    state,
    /is missing; found .*__nf3/,
  ],
  ['another quantization type than its name has', describing({ quant_type: 'fp4' }), state, /found quant_type fp4/],
  ['another shape', describing({ shape: [48, 112] }), state, /found shape \[48, 112\], expected \[112, 48\]/],
  ['no number of the scales', describing({ nested_offset: null }), state, /found nested_offset null/],
  ['what f32 cannot hold', describing({ nested_offset: 1e300 }), state, /found nested_offset 1e\+300/],
  ['another block size of scales', describing({ nested_blocksize: 64 }), state, /found nested_blocksize 64, .*256/],
  ['no JSON', (t) => t.set(state, u8(Buffer.from('{"quant_type"'))), state, /found what is not JSON/],
  ['JSON of another kind', (t) => t.set(state, u8(Buffer.from('null'))), state, /expected object/],
  ['endless JSON', (t) => t.set(state, u8(Buffer.alloc(5000, ' '))), state, /U8 of 5000 bytes, expected .* 4096/],
  [
    'another table',
    patched(`${weight}.quant_map`, 3, 0.5),
    `${weight}.quant_map`,
    /found 0.5 for code 3, expected -0.39/,
  ],
  ['another map of scales', patched(`${weight}.nested_quant_map`, 9, 0.5), 'nested_quant_map', /found 0.5 for code 9/],
  ['too few codes', (t) => t.set(weight, u8(new Uint8Array(2687))), weight, /U8 \[2687\], 2687 bytes, expected 2688/],
]

describe('a checkpoint in 4 bits is refused with', () => {
  test.each(cases)('%s', async (_, change, tensor, expected) => {
    const copy = await changed('quantized-nf4', change)
    const { message, hint } = await errorOf(copy)
    expect(message).toContain(`${join(copy, 'model.safetensors')}: tensor `)
    expect(message).toContain(tensor)
    expect(message).toMatch(expected)
    expect(hint).toMatch(/./)
  })

  test('different block sizes', async () => {
    const copy = await changed('quantized-nf4', (tensors) => {
      describing({ blocksize: 128 })(tensors)
      tensors.set(`${weight}.absmax`, u8(new Uint8Array(42)))
    })
    const { message } = await errorOf(copy)
    expect(message).toMatch(/up_proj.weight: found block size 128, expected 64, as model.layers.0.self_attn.q_proj/)
  })

  test('a shard that is cut short', async () => {
    const copy = await changed('quantized-nf4', () => {}, { maxShardBytes: 40_000 })
    const shard = join(copy, 'model-00002-of-00003.safetensors')
    truncateSync(shard, readFileSync(shard).length - 10)
    const { message, hint } = await errorOf(copy)
    expect(message).toContain(shard)
    expect(message).toMatch(/cut short/)
    expect(hint).toMatch(/download/)
  })
})

test.each([
  ['no scales', (t: Tensors) => t.delete(scales), /up_proj.SCB is missing; expected F32 with 112 elements/],
  ['too few scales', (t: Tensors) => t.set(scales, f32(1, 2)), /up_proj.SCB is F32 \[2\]; expected F32 with 112 /],
  ['a scale below zero', patched(scales, 5, -1), /up_proj.SCB: found -1 in element 5/],
  [
    'an order of a GPU',
    (t: Tensors) => t.set('model.layers.1.mlp.up_proj.weight_format', u8(Uint8Array.of(2))),
    /weight_format: found 2, .* expected 0/,
  ],
  [
    'another shape',
    (t: Tensors) => t.set(weight, { ...get(t, weight), shape: [48, 112] }),
    /found shape \[48, 112\], expected \[112, 48\]/,
  ],
])('a checkpoint in 8 bits is refused with %s', async (_, change, expected) => {
  const { message, hint } = await errorOf(await changed('quantized-int8', change))
  expect(message).toMatch(expected)
  expect(hint).toMatch(/./)
})

test.each([
  ['"bnb_4bit_quant_type": "nf4"', '"bnb_4bit_quant_type": "nf3"', /bnb_4bit_quant_type: found "nf3", expected nf4 or/],
  [
    '"bnb_4bit_quant_type": "nf4"',
    '"bnb_4bit_quant_type": "fp4"',
    /found quantization type nf4, expected fp4, as config/,
  ],
  ['"quant_method": "bitsandbytes"', '"quant_method": "gptq"', /quantized by "gptq" are not supported/],
  ['"load_in_8bit": false', '"load_in_8bit": true', /load_in_4bit and load_in_8bit are both true/],
  ['"load_in_4bit": true', '"load_in_4bit": false', /load_in_4bit and load_in_8bit are both false/],
  ['"quantization_config"', '"quantization_confix"', /is U8|has shape \[1152, 1\]/],
  ['"bnb_4bit_use_double_quant": true', '"bnb_4bit_use_double_quant": "yes"', /bnb_4bit_use_double_quant: /],
])('a config.json with %s as %s is refused', async (from, to, expected) => {
  const config = (text: string): string => {
    expect(text).toContain(from)
    return text.replace(from, to)
  }
  const { message, hint } = await errorOf(await changed('quantized-nf4', () => {}, { config }))
  expect(message).toMatch(expected)
  expect(hint).toMatch(/./)
})

test('weights that are not quantized although config.json says so are refused', async () => {
  const text = readFileSync(join(golden, 'bias-untied/config.json'), 'utf8')
  const copy = await changed('bias-untied', () => {}, { config: () => withQuantizationConfig(text, { kind: '8bit' }) })
  expect((await errorOf(copy)).message).toMatch(/no weight is quantized/)
})

test('layers left out by llm_int8_skip_modules are floats; a quantized head is expanded', async () => {
  const base = await openWeights(join(golden, 'bias-untied'))
  const [head, skipped] = ['lm_head.weight', weight]
  const values = widened(await base.load(head))
  const float = await base.load(skipped)
  const bytes = new Uint8Array((float as { data: Uint16Array }).data.buffer)
  const quantization: Quantization = { kind: '4bit', quantType: 'nf4', doubleQuant: true, blockSize: 64 }
  const parts = savedTensors({
    name: head,
    shape: values.shape,
    quantization,
    dtype: 'BF16',
    make: async () => quantizeWeight(values, quantization, head),
  })
  const data = await Promise.all(parts.map(async (part) => (part.data as () => Promise<Uint8Array>)()))
  const copy = await changed('quantized-nf4', (tensors) => {
    for (const name of tensors.keys()) if (name.startsWith(`${skipped}.`)) tensors.delete(name)
    tensors.set(skipped, { dtype: 'BF16', shape: [112, 48], data: bytes })
    parts.forEach(({ name, dtype, shape }, i) => tensors.set(name, { dtype, shape, data: data[i]! }))
  })
  const source = await openWeights(copy)
  expect([source.storage(skipped), source.storage(head)]).toEqual(['BF16', 'F32'])
  expect(await source.load(skipped)).toEqual(float)
  expect(await source.load(head)).toEqual(widened(quantizeWeight(values, quantization, head)))
  await Promise.all([source.close(), base.close()])
})

test('codes that go by another dtype (bnb_4bit_quant_storage) are the same codes', async () => {
  const copy = await changed('quantized-nf4', (tensors) => {
    const { data } = get(tensors, weight)
    tensors.set(weight, { dtype: 'BF16', shape: [data.length / 2, 1], data })
  })
  const [source, plain] = [await openWeights(copy), await openWeights(join(golden, 'quantized-nf4'))]
  expect(source.storage(weight)).toEqual(plain.storage(weight))
  expect(await source.load(weight)).toEqual(await plain.load(weight))
  await Promise.all([source.close(), plain.close()])
})

describe('a quantization asked for', () => {
  let source: WeightSource
  beforeAll(async () => {
    source = await openWeights(join(golden, 'quantized-nf4'))
  })
  afterAll(() => source.close())
  const nf4 = { kind: '4bit', quantType: 'nf4', doubleQuant: true, blockSize: 64 } as const

  test('is that of the checkpoint', () => {
    expect(quantizedWeights(source, nf4, () => false)).toBe(source)
  })

  test.each([
    [{ ...nf4, quantType: 'fp4' }, '4-bit fp4 with double quantization in blocks of 64'],
    [{ ...nf4, blockSize: 128 }, 'in blocks of 128'],
    [{ ...nf4, doubleQuant: false }, 'without double quantization'],
    [{ kind: '8bit' }, '8-bit'],
  ] as const)('is another: %j', (asked, text) => {
    expect(() => quantizedWeights(source, asked, () => false)).toThrow(
      /quantized already, 4-bit nf4 with double quantization in blocks of 64; asked for is /,
    )
    expect(() => quantizedWeights(source, asked, () => false)).toThrow(text)
  })
})

test('the tensors of a weight: quantized once, of the size announced whatever the offset of the scales is', async () => {
  const shape = [3, 50]
  for (const scale of [1, 1.2345678e-30, 7.654321e-7, 1e37]) {
    const values = Float32Array.from({ length: 150 }, (_, i) => scale * Math.sin(i))
    const quantization = { kind: '4bit', quantType: 'fp4', doubleQuant: true, blockSize: 32 } as const
    let made = 0
    const parts = savedTensors({
      name: 'w',
      shape,
      quantization,
      dtype: 'F16',
      make: async () => {
        made++
        return quantizeWeight({ storage: 'F32', shape, data: values }, quantization, 'w')
      },
    })
    const packed = quantizeFourBit(values, quantization)
    for (const { name, shape: dims, dtype, data } of parts) {
      const bytes = await (data as () => Promise<Uint8Array>)()
      const count = elements(dims)
      expect(bytes.length, name).toBe(count * (dtype === 'F32' ? 4 : 1))
      if (!name.includes('quant_state')) continue
      expect(name).toBe('w.quant_state.bitsandbytes__fp4')
      const { nested_offset: offset, ...rest } = JSON.parse(Buffer.from(bytes).toString()) as Record<string, unknown>
      expect(offset).toBe('offset' in packed.scales ? packed.scales.offset : undefined)
      expect(rest).toEqual({
        quant_type: 'fp4',
        blocksize: 32,
        dtype: 'float16',
        shape,
        nested_blocksize: 256,
        nested_dtype: 'float32',
      })
    }
    expect(made).toBe(1)
  }
})
