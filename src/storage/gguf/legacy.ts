import type { BlockFormat } from './blocks.ts'
import { halfAt } from './halves.ts'

/*
 * Blocks of 32 numbers with a scale, and perhaps a minimum. Codes of 4 bits are two to a byte: byte j has those of numbers j and j + 16.
 */

/** d * (code - 8) */
export const q4_0: BlockFormat = {
  scales: [0],
  dequantize: (bytes, out) => {
    for (let at = 0, i = 0; at < bytes.length; at += 18, i += 32) {
      const d = halfAt(bytes, at)
      for (let j = 0; j < 16; j++) {
        const byte = bytes[at + 2 + j]!
        out[i + j] = d * ((byte & 15) - 8)
        out[i + j + 16] = d * ((byte >> 4) - 8)
      }
    }
  },
}

/** d * code + m */
export const q4_1: BlockFormat = {
  scales: [0, 2],
  dequantize: (bytes, out) => {
    for (let at = 0, i = 0; at < bytes.length; at += 20, i += 32) {
      const d = halfAt(bytes, at)
      const m = halfAt(bytes, at + 2)
      for (let j = 0; j < 16; j++) {
        const byte = bytes[at + 4 + j]!
        out[i + j] = d * (byte & 15) + m
        out[i + j + 16] = d * (byte >> 4) + m
      }
    }
  },
}

/** d * (code - 16); the fifth bits of the codes are together, before the others. */
export const q5_0: BlockFormat = {
  scales: [0],
  dequantize: (bytes, out) => {
    for (let at = 0, i = 0; at < bytes.length; at += 22, i += 32) {
      const d = halfAt(bytes, at)
      const high = bytes[at + 2]! | (bytes[at + 3]! << 8) | (bytes[at + 4]! << 16) | (bytes[at + 5]! << 24)
      for (let j = 0; j < 16; j++) {
        const byte = bytes[at + 6 + j]!
        out[i + j] = d * (((byte & 15) | (((high >>> j) & 1) << 4)) - 16)
        out[i + j + 16] = d * (((byte >> 4) | (((high >>> (j + 16)) & 1) << 4)) - 16)
      }
    }
  },
}

/** d * code + m */
export const q5_1: BlockFormat = {
  scales: [0, 2],
  dequantize: (bytes, out) => {
    for (let at = 0, i = 0; at < bytes.length; at += 24, i += 32) {
      const d = halfAt(bytes, at)
      const m = halfAt(bytes, at + 2)
      const high = bytes[at + 4]! | (bytes[at + 5]! << 8) | (bytes[at + 6]! << 16) | (bytes[at + 7]! << 24)
      for (let j = 0; j < 16; j++) {
        const byte = bytes[at + 8 + j]!
        out[i + j] = d * ((byte & 15) | (((high >>> j) & 1) << 4)) + m
        out[i + j + 16] = d * ((byte >> 4) | (((high >>> (j + 16)) & 1) << 4)) + m
      }
    }
  },
}

/** d * code, a signed byte */
export const q8_0: BlockFormat = {
  scales: [0],
  dequantize: (bytes, out) => {
    const codes = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    for (let at = 0, i = 0; at < bytes.length; at += 34, i += 32) {
      const d = halfAt(bytes, at)
      // Four a turn: a third faster than one.
      for (let j = 0; j < 32; j += 4) {
        out[i + j] = d * codes[at + j + 2]!
        out[i + j + 1] = d * codes[at + j + 3]!
        out[i + j + 2] = d * codes[at + j + 4]!
        out[i + j + 3] = d * codes[at + j + 5]!
      }
    }
  },
}

/** The numbers of the codes of IQ4_NL. */
const nonLinear = Int8Array.of(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

/** d * table[code] */
export const iq4_nl: BlockFormat = {
  scales: [0],
  dequantize: (bytes, out) => {
    for (let at = 0, i = 0; at < bytes.length; at += 18, i += 32) {
      const d = halfAt(bytes, at)
      for (let j = 0; j < 16; j++) {
        const byte = bytes[at + 2 + j]!
        out[i + j] = d * nonLinear[byte & 15]!
        out[i + j + 16] = d * nonLinear[byte >> 4]!
      }
    }
  },
}
