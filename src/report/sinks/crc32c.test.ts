import { expect, test } from 'vitest'
import { crc32c, maskedCrc32c } from './crc32c.ts'

// RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
test.each([
  [new Uint8Array(32), 0x8a9136aa],
  [new Uint8Array(32).fill(0xff), 0x62a8ab43],
  [Uint8Array.from({ length: 32 }, (_, index) => index), 0x46dd794e],
  [Uint8Array.from({ length: 32 }, (_, index) => 31 - index), 0x113fdb5c],
  [Buffer.from('123456789'), 0xe3069283],
  [new Uint8Array(0), 0],
])('crc32c of %s', (bytes, expected) => {
  expect(crc32c(bytes)).toBe(expected)
})

test('the mask turns by 15 bits and adds a constant, modulo 2^32', () => {
  expect(maskedCrc32c(new Uint8Array(0))).toBe(0xa282ead8)
  const rotated = BigInt.asUintN(32, (0xe3069283n >> 15n) | (0xe3069283n << 17n))
  expect(maskedCrc32c(Buffer.from('123456789'))).toBe(Number(BigInt.asUintN(32, rotated + 0xa282ead8n)))
})
