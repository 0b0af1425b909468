import type { BlockFormat } from './blocks.ts'
import { halfAt } from './halves.ts'

/*
 * Blocks of 256 numbers in groups of 16 or 32, each with a scale, and perhaps a minimum, of a few bits: steps of one in f16.
 */

/** 16 groups, 4 bits for scale and minimum each: d * scale * code - dmin * minimum. */
export const q2_k: BlockFormat = {
  scales: [80, 82],
  dequantize: (bytes, out) => {
    for (let at = 0, start = 0; at < bytes.length; at += 84, start += 256) {
      const d = halfAt(bytes, at + 80)
      const dmin = halfAt(bytes, at + 82)
      for (let part = 0; part < 4; part++) {
        // 16 bytes hold the codes of every other group of half a block, two bits each.
        const group = at + (part >> 1) * 8 + (part & 1)
        const [a, b, c, e] = [bytes[group]!, bytes[group + 2]!, bytes[group + 4]!, bytes[group + 6]!]
        const [scaleA, scaleB, scaleC, scaleE] = [d * (a & 15), d * (b & 15), d * (c & 15), d * (e & 15)]
        const [leastA, leastB, leastC, leastE] = [dmin * (a >> 4), dmin * (b >> 4), dmin * (c >> 4), dmin * (e >> 4)]
        const codes = at + 16 + 16 * part
        let i = start + (part >> 1) * 128 + (part & 1) * 16
        for (let j = 0; j < 16; j++, i++) {
          const byte = bytes[codes + j]!
          out[i] = scaleA * (byte & 3) - leastA
          out[i + 32] = scaleB * ((byte >> 2) & 3) - leastB
          out[i + 64] = scaleC * ((byte >> 4) & 3) - leastC
          out[i + 96] = scaleE * (byte >> 6) - leastE
        }
      }
    }
  },
}

/** 16 groups, 6 bits for a signed scale each: d * scale * code; a code is 4 less where its third bit, kept apart, is not set. */
export const q3_k: BlockFormat = {
  scales: [108],
  dequantize: (bytes, out) => {
    for (let at = 0, start = 0; at < bytes.length; at += 110, start += 256) {
      const d = halfAt(bytes, at + 108)
      for (let part = 0; part < 4; part++) {
        const [half, odd] = [part >> 1, part & 1]
        const group = 8 * half + odd
        const scaleA = d * signedScale(bytes, at + 96, group)
        const scaleB = d * signedScale(bytes, at + 96, group + 2)
        const scaleC = d * signedScale(bytes, at + 96, group + 4)
        const scaleD = d * signedScale(bytes, at + 96, group + 6)
        const [codes, masks] = [at + 32 + 16 * part, at + 16 * odd]
        let i = start + half * 128 + odd * 16
        for (let j = 0; j < 16; j++, i++) {
          const byte = bytes[codes + j]!
          const mask = bytes[masks + j]! >> (4 * half)
          out[i] = scaleA * ((byte & 3) - 4 + ((mask & 1) << 2))
          out[i + 32] = scaleB * (((byte >> 2) & 3) - 4 + ((mask & 2) << 1))
          out[i + 64] = scaleC * (((byte >> 4) & 3) - 4 + (mask & 4))
          out[i + 96] = scaleD * ((byte >> 6) - 4 + ((mask & 8) >> 1))
        }
      }
    }
  },
}

/** Scale `group` of the 12 bytes from `at` on that hold 16 of 6 bits: their low halves, then their high bits. */
function signedScale(bytes: Uint8Array, at: number, group: number): number {
  const low = (bytes[at + (group & 7)]! >> (group < 8 ? 0 : 4)) & 15
  const high = (bytes[at + 8 + (group & 3)]! >> ((group >> 2) * 2)) & 3
  return (low | (high << 4)) - 32
}

/** Of the 12 bytes from `at` on that hold 8 scales and 8 minima of 6 bits: scale `group`, and minimum `group`. */
function scaleOf(bytes: Uint8Array, at: number, group: number): number {
  if (group < 4) return bytes[at + group]! & 63
  return (bytes[at + group + 4]! & 15) | ((bytes[at + group - 4]! >> 6) << 4)
}

function minimumOf(bytes: Uint8Array, at: number, group: number): number {
  if (group < 4) return bytes[at + group + 4]! & 63
  return (bytes[at + group + 4]! >> 4) | ((bytes[at + group]! >> 6) << 4)
}

/** 8 groups, 6 bits for scale and minimum each: d * scale * code - dmin * minimum. */
export const q4_k: BlockFormat = {
  scales: [0, 2],
  dequantize: (bytes, out) => {
    for (let at = 0, i = 0; at < bytes.length; at += 144) {
      const d = halfAt(bytes, at)
      const dmin = halfAt(bytes, at + 2)
      for (let pair = 0; pair < 4; pair++, i += 64) {
        const [first, second] = [d * scaleOf(bytes, at + 4, 2 * pair), d * scaleOf(bytes, at + 4, 2 * pair + 1)]
        const least = dmin * minimumOf(bytes, at + 4, 2 * pair)
        const secondLeast = dmin * minimumOf(bytes, at + 4, 2 * pair + 1)
        const codes = at + 16 + 32 * pair
        for (let j = 0; j < 32; j++) {
          const byte = bytes[codes + j]!
          out[i + j] = first * (byte & 15) - least
          out[i + j + 32] = second * (byte >> 4) - secondLeast
        }
      }
    }
  },
}

/** As Q4_K, with the fifth bits of the codes before the others. */
export const q5_k: BlockFormat = {
  scales: [0, 2],
  dequantize: (bytes, out) => {
    for (let at = 0, i = 0; at < bytes.length; at += 176) {
      const d = halfAt(bytes, at)
      const dmin = halfAt(bytes, at + 2)
      for (let pair = 0; pair < 4; pair++, i += 64) {
        const [first, second] = [d * scaleOf(bytes, at + 4, 2 * pair), d * scaleOf(bytes, at + 4, 2 * pair + 1)]
        const least = dmin * minimumOf(bytes, at + 4, 2 * pair)
        const secondLeast = dmin * minimumOf(bytes, at + 4, 2 * pair + 1)
        const codes = at + 48 + 32 * pair
        for (let j = 0; j < 32; j++) {
          const byte = bytes[codes + j]!
          const high = bytes[at + 16 + j]! >> (2 * pair)
          out[i + j] = first * ((byte & 15) | ((high & 1) << 4)) - least
          out[i + j + 32] = second * ((byte >> 4) | ((high & 2) << 3)) - secondLeast
        }
      }
    }
  },
}

/** 16 groups, a signed byte for the scale of each: d * scale * (code - 32), a code of 4 bits and 2 that are kept apart. */
export const q6_k: BlockFormat = {
  scales: [208],
  dequantize: (bytes, out) => {
    const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    for (let at = 0, start = 0; at < bytes.length; at += 210, start += 256) {
      const d = halfAt(bytes, at + 208)
      for (let part = 0; part < 4; part++) {
        const [half, odd] = [part >> 1, part & 1]
        const group = at + 192 + 8 * half + odd
        const [scaleA, scaleB] = [d * signed[group]!, d * signed[group + 2]!]
        const [scaleC, scaleD] = [d * signed[group + 4]!, d * signed[group + 6]!]
        const [low, high] = [at + 64 * half + 16 * odd, at + 128 + 32 * half + 16 * odd]
        let i = start + half * 128 + odd * 16
        for (let j = 0; j < 16; j++, i++) {
          const first = bytes[low + j]!
          const second = bytes[low + j + 32]!
          const bits = bytes[high + j]!
          out[i] = scaleA * (((first & 15) | ((bits & 3) << 4)) - 32)
          out[i + 32] = scaleB * (((second & 15) | ((bits & 12) << 2)) - 32)
          out[i + 64] = scaleC * (((first >> 4) | (bits & 48)) - 32)
          out[i + 96] = scaleD * (((second >> 4) | ((bits & 192) >> 2)) - 32)
        }
      }
    }
  },
}
