import { describe, expect, it } from 'vitest'
import { bf16ToF32, bytesToF32, f16ToF32, f32ToBf16, f32ToBytes, f32ToF16, indexOfOverflow } from './dtype.ts'

const everyHalf = Uint16Array.from({ length: 65536 }, (_, i) => i)
const f32 = (bits: number): number => new Float32Array(Uint32Array.of(bits).buffer)[0]!

describe('bf16', () => {
  it('reads known values', () => {
    const values = bf16ToF32(Uint16Array.of(0x3f80, 0xc000, 0x7f80, 0xff80, 0x7fc0, 0x0001, 0x8000))
    expect([...values]).toEqual([1, -2, Infinity, -Infinity, NaN, 2 ** -133, -0])
  })

  it('writes back each of the 65,536 numbers as it was read', () => {
    const back = f32ToBf16(bf16ToF32(everyHalf))
    // Signalling NaNs come back quiet.
    const expected = everyHalf.map((x) => ((x & 0x7fff) > 0x7f80 ? x | 0x40 : x))
    expect(Buffer.from(back.buffer).equals(Buffer.from(expected.buffer))).toBe(true)
  })

  it('rounds to nearest even and never makes an infinity out of a NaN', () => {
    const bits = [0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0x7f7fffff, 0x7f800001]
    const source = new Float32Array(Uint32Array.from(bits).buffer)
    expect([...f32ToBf16(source)]).toEqual([0x3f80, 0x3f82, 0x3f81, 0x3f80, 0x7f80, 0x7fc0])
  })
})

describe('f16', () => {
  it('reads known values', () => {
    const values = f16ToF32(
      Uint16Array.of(0x3c00, 0xc000, 0x7bff, 0x0001, 0x03ff, 0x0400, 0x7c00, 0xfc00, 0x7e00, 0x8000),
    )
    const expected = [1, -2, 65504, 2 ** -24, 1023 * 2 ** -24, 2 ** -14, Infinity, -Infinity, NaN, -0]
    expect([...values]).toEqual(expected)
  })

  it('writes back each of the 65,536 numbers as it was read', () => {
    const back = f32ToF16(f16ToF32(everyHalf))
    const expected = everyHalf.map((x) => ((x & 0x7fff) > 0x7c00 ? x | 0x200 : x))
    expect(Buffer.from(back.buffer).equals(Buffer.from(expected.buffer))).toBe(true)
  })

  it('rounds each midpoint between neighbours to even, and what lies beside it to the nearer one', () => {
    let checked = 0
    for (let half = 0; half < 0x7bff; half++) {
      const [low, high] = f16ToF32(Uint16Array.of(half, half + 1))
      const middle = (low! + high!) / 2
      const middleBits = new Uint32Array(Float32Array.of(middle).buffer)[0]!
      const [below, tie, above] = f32ToF16(Float32Array.of(f32(middleBits - 1), middle, f32(middleBits + 1)))
      if (below !== half || tie !== (half % 2 === 0 ? half : half + 1) || above !== half + 1) {
        expect({ half, below, tie, above }).toBe('rounded wrongly')
      }
      checked++
    }
    expect(checked).toBe(0x7bff)
  })

  it('overflows to infinity and underflows to zero, keeping the sign', () => {
    const source = Float32Array.of(65519.99, 65520, -1e9, 2 ** -25, -(2 ** -25), 1.01 * 2 ** -25, 1e-40, NaN)
    expect([...f32ToF16(source)]).toEqual([0x7bff, 0x7c00, 0xfc00, 0, 0x8000, 1, 0, 0x7e00])
  })
})

it('converts bytes at an odd offset', () => {
  const bytes = new Uint8Array(5)
  bytes.set(f32ToBytes(Float32Array.of(1.5, -3), 'BF16'), 1)
  expect([...bytesToF32(bytes.subarray(1), 'BF16')]).toEqual([1.5, -3])
  expect([...bytesToF32(f32ToBytes(Float32Array.of(1.5, -3), 'F16'), 'F16')]).toEqual([1.5, -3])
})

describe('numbers too large for a dtype', () => {
  it.each([
    ['F16', f32ToF16, f16ToF32, 0x477ff000],
    ['BF16', f32ToBf16, bf16ToF32, 0x7f7f8000],
  ] as const)('of %s are those that its conversion makes infinite', (dtype, narrow, widen, border) => {
    for (const bits of [border - 1, border, border + 1, border | 0x80000000]) {
      const values = Float32Array.of(0, f32(bits))
      const overflows = !Number.isFinite(widen(narrow(values))[1])
      expect(overflows).toBe(bits !== border - 1)
      expect(indexOfOverflow(values, dtype)).toBe(overflows ? 1 : -1)
    }
  })

  it('are found behind what is not finite itself, and never in f32', () => {
    const values = Float32Array.of(Infinity, NaN, -1e38)
    expect(indexOfOverflow(values, 'F16')).toBe(2)
    expect(indexOfOverflow(values, 'F32')).toBe(-1)
  })
})
