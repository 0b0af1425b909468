import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { openSafetensors } from '../formats/safetensors.ts'
import { bytesToF32, f32ToBytes, type FloatDtype } from '../util/dtype.ts'
import { dequantizeBlockwise, dynamicMap, quantizeBlockwise } from './blockwise.ts'
import { blockScales, dequantizeFourBit, fourBitTables, type FourBitType, quantizeFourBit } from './fourbit.ts'
import { dequantizeInt8, quantizeInt8 } from './int8.ts'
import { mean } from './mean.ts'

/** Made by `make_quant_golden.py` with bitsandbytes; every comparison here is of bytes. */
const folder = fileURLToPath(new URL('../../test/golden/quant/', import.meta.url))

interface Case {
  readonly name: string
  readonly input: string
}
interface Golden {
  readonly fourbit: readonly (Case & {
    readonly dtype: FloatDtype
    readonly quantType: FourBitType
    readonly blockSize: number
    readonly offset: number
    readonly plain: string
    readonly nested: string
  })[]
  readonly int8: readonly (Case & { readonly dtype: FloatDtype; readonly sha256: string })[]
  readonly blockwise: readonly (Case & {
    readonly signed: boolean
    readonly blockSize: number
    readonly sha256: string
  })[]
  readonly means: Readonly<Record<string, number>>
}

const golden = JSON.parse(await readFile(`${folder}golden.json`, 'utf8')) as Golden
const reader = await openSafetensors(`${folder}golden.safetensors`)
const tensors = new Map<string, Uint8Array>()
for (const name of reader.tensors.keys()) tensors.set(name, await reader.read(name))
const shapes = new Map([...reader.tensors].map(([name, { shape }]) => [name, shape]))
await reader.close()

type Bytes = Uint8Array | Int8Array | Float32Array
const bytes = (array: Bytes): Uint8Array => new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
const sha256 = (array: Bytes): string => createHash('sha256').update(bytes(array)).digest('hex')

function tensor(name: string): Uint8Array {
  const found = tensors.get(name)
  if (found === undefined) throw new Error(`no golden tensor ${name}`)
  return found
}

function expectBytes(actual: Bytes, name: string): void {
  expect(bytes(actual), name).toEqual(tensor(name))
}

/** The f32 values that a checkpoint of `dtype` would hold. */
const input = (name: string, dtype: FloatDtype = 'F32'): Float32Array =>
  bytesToF32(f32ToBytes(bytesToF32(tensor(`input.${name}`), 'F32'), dtype), dtype)

test('the golden file holds what it should', () => {
  expect(golden.fourbit.length).toBe(124)
  expect(new Set(golden.fourbit.map(({ quantType, blockSize }) => `${quantType}-${blockSize}`)).size).toBe(6)
  expect([golden.int8.length, golden.blockwise.length]).toEqual([3, 16])
})

describe('4 bit', () => {
  test.each(['nf4', 'fp4'] as const)('the table of %s', (type) => expectBytes(fourBitTables[type], `table.${type}`))

  test.each(golden.fourbit)('$name', ({ name, input: of, dtype, quantType, blockSize, ...expected }) => {
    const values = input(of, dtype)
    const plain = quantizeFourBit(values, { quantType, blockSize, doubleQuant: false })
    expectBytes(plain.codes, `${name}.codes`)
    expectBytes(blockScales(plain), `${name}.absmax`)
    expect(sha256(dequantizeFourBit(plain))).toBe(expected.plain)

    const nested = quantizeFourBit(values, { quantType, blockSize, doubleQuant: true })
    expectBytes(nested.codes, `${name}.codes`)
    if (!('offset' in nested.scales)) throw new Error('double quantization left the scales as they were')
    expect(nested.scales.offset).toBe(expected.offset)
    expectBytes(nested.scales.codes, `${name}.nested.codes`)
    expectBytes(nested.scales.absmax, `${name}.nested.absmax`)
    expectBytes(nested.scales.map, 'map.signed')
    expect(sha256(dequantizeFourBit(nested))).toBe(expected.nested)
  })
})

test.each(golden.int8)('$name', ({ name, input: of, dtype, sha256: expected }) => {
  const [rows = 0, columns = 0] = shapes.get(`input.${of}`) ?? []
  const w = quantizeInt8(input(of, dtype), rows, columns)
  expectBytes(w.data, `${name}.data`)
  expectBytes(w.scale, `${name}.scale`)
  expect(sha256(dequantizeInt8(w))).toBe(expected)
})

describe('blockwise', () => {
  test.each([true, false])('the dynamic map, signed: %s', (signed) =>
    expectBytes(dynamicMap(signed), `map.${signed ? 'signed' : 'unsigned'}`),
  )

  test.each(golden.blockwise)('$name', ({ name, input: of, signed, blockSize, sha256: expected }) => {
    const format = { map: dynamicMap(signed), blockSize }
    const values = input(of)
    const quantized = quantizeBlockwise(values, format)
    expectBytes(quantized.codes, `${name}.codes`)
    expectBytes(quantized.absmax, `${name}.absmax`)
    expect(sha256(dequantizeBlockwise(quantized, format))).toBe(expected)

    // The same into arrays that hold something else, as in an optimizer.
    const out = { codes: new Uint8Array(values.length).fill(77), absmax: new Float32Array(quantized.absmax.length) }
    expect(quantizeBlockwise(values, format, out)).toBe(out)
    expect(out).toEqual(quantized)
  })
})

test.each(Object.entries(golden.means))('the mean of %s values', (count, bits) => {
  const values = Float32Array.from({ length: Number(count) }, (_, i) => (Math.imul(i, 2654435761) >>> 0) / 2 ** 32)
  expect(new Int32Array(Float32Array.of(mean(values)).buffer)[0]).toBe(bits)
})
