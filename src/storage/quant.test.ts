import { describe, expect, test } from 'vitest'
import { dynamicMap, quantizeBlockwise } from './blockwise.ts'
import { blockScales, dequantizeFourBit, type FourBitFormat, quantizeFourBit } from './fourbit.ts'
import { dequantizeInt8, quantizeInt8 } from './int8.ts'

const format: FourBitFormat = { quantType: 'nf4', blockSize: 64, doubleQuant: false }
const ramp = (count: number): Float32Array => Float32Array.from({ length: count }, (_, i) => Math.sin(i) / 8)

describe('what cannot be quantized', () => {
  test.each([NaN, -NaN, Infinity, -Infinity])('%s, wherever it stands', (value) => {
    for (const index of [0, 64, 129]) {
      const values = ramp(130)
      values[index] = value
      const message = (what: string): string => `${what}: element ${index} is ${value}`
      expect(() => quantizeFourBit(values, format, 'a.weight')).toThrow(message('cannot quantize a.weight'))
      expect(() => quantizeInt8(values, 2, 65, 'b.weight')).toThrow(message('cannot quantize b.weight to int8'))
      expect(() => quantizeBlockwise(values, { map: dynamicMap(true), blockSize: 64 }, undefined, 'the state')).toThrow(
        message('cannot quantize the state'),
      )
    }
  })

  test('int8: what f16 cannot hold', () => {
    const values = ramp(8)
    values[5] = 65519.996
    expect(quantizeInt8(values, 2, 4).scale[1]).toBe(65504)
    values[5] = 65520
    expect(() => quantizeInt8(values, 2, 4, 'b.weight')).toThrow('cannot quantize b.weight to int8: element 5 is 65520')
  })

  test('a block size that bitsandbytes does not know', () => {
    expect(() => quantizeFourBit(ramp(64), { ...format, blockSize: 48 })).toThrow(
      '4-bit block size 48 is not one of 32',
    )
  })
})

describe('4 bit', () => {
  test('quantizes nothing to nothing', () => {
    const w = quantizeFourBit(new Float32Array(0), { ...format, doubleQuant: true })
    expect([w.codes.length, blockScales(w).length, dequantizeFourBit(w).length]).toEqual([0, 0, 0])
  })

  test('a part of a larger buffer is quantized like a copy of it', () => {
    const whole = ramp(1000)
    expect(quantizeFourBit(whole.subarray(3, 400), format)).toEqual(quantizeFourBit(whole.slice(3, 400), format))
  })

  test('writes into what it is given', () => {
    const w = quantizeFourBit(ramp(301), { ...format, doubleQuant: true })
    const scales = new Float32Array(5)
    const weights = new Float32Array(301)
    expect(blockScales(w, scales)).toBe(scales)
    expect(dequantizeFourBit(w, weights)).toBe(weights)
    expect(scales).toEqual(blockScales(w))
    const plain = quantizeFourBit(ramp(301), format)
    expect(blockScales(plain, scales)).toBe(scales)
    expect(scales).toEqual(blockScales(plain))
  })

  test('a number of the table times a power of two comes back as it was', () => {
    const values = dequantizeFourBit(quantizeFourBit(ramp(64), format)).map((value) => value * 16)
    expect(dequantizeFourBit(quantizeFourBit(values, format))).toEqual(values)
  })
})

test('int8: a row of zeros stays zeros', () => {
  const w = quantizeInt8(Float32Array.of(0, -0, 0, 1, -1, 0.5), 2, 3)
  expect([...w.data]).toEqual([0, 0, 0, 127, -127, 64])
  expect(dequantizeInt8(w).subarray(0, 3)).toEqual(Float32Array.of(0, 0, 0))
})
