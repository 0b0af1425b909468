import { halfValues } from '../../util/dtype.ts'

/** Block formats whose codes may be held apart from their scales: those that llama.cpp gives an output head. */
export type SplitType = 'Q8_0' | 'Q6_K'

/**
 * Rows of blocks with codes and scales apart, so that programs can compute with them: code * scale of the block, or code * (scale of the
 * block * step of the group). The numbers are the same.
 */
export interface SplitBlocks {
  /** [rows * width] */
  readonly codes: Int8Array
  /** A scale for each block, in f16: [rows * width / `blockElements`] */
  readonly scales: Uint16Array
  /** Of Q6_K, by what that of each group of 16 is multiplied: [rows * width / 16]; otherwise none. */
  readonly steps: Int8Array
}

/** Elements of a block, and of a group with a step of its own; 0: it has none. */
export const splitLayouts: Readonly<Record<SplitType, { readonly block: number; readonly group: number }>> = {
  Q8_0: { block: 32, group: 0 },
  Q6_K: { block: 256, group: 16 },
}

export function isSplitType(name: string): name is SplitType {
  return Object.hasOwn(splitLayouts, name)
}

/** Memory for `count` numbers. */
export function emptySplit(type: SplitType, count: number): SplitBlocks {
  const { block, group } = splitLayouts[type]
  return {
    codes: new Int8Array(count),
    scales: new Uint16Array(count / block),
    steps: new Int8Array(group === 0 ? 0 : count / group),
  }
}

/** Takes blocks apart: the first of `bytes` is block `first` of the whole. */
export function splitBlocks(type: SplitType, bytes: Uint8Array, into: SplitBlocks, first: number): void {
  if (type === 'Q8_0') splitQ8(bytes, into, first)
  else splitQ6(bytes, into, first)
}

function splitQ8(bytes: Uint8Array, { codes, scales }: SplitBlocks, first: number): void {
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let at = 0, block = first; at < bytes.length; at += 34, block++) {
    scales[block] = bytes[at]! | (bytes[at + 1]! << 8)
    codes.set(signed.subarray(at + 2, at + 34), 32 * block)
  }
}

function splitQ6(bytes: Uint8Array, { codes, scales, steps }: SplitBlocks, first: number): void {
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let at = 0, block = first; at < bytes.length; at += 210, block++) {
    scales[block] = bytes[at + 208]! | (bytes[at + 209]! << 8)
    steps.set(signed.subarray(at + 192, at + 208), 16 * block)
    for (let half = 0; half < 2; half++) {
      const [low, high] = [at + 64 * half, at + 128 + 32 * half]
      const start = 256 * block + 128 * half
      for (let j = 0; j < 32; j++) {
        const first = bytes[low + j]!
        const second = bytes[low + j + 32]!
        const bits = bytes[high + j]!
        codes[start + j] = ((first & 15) | ((bits & 3) << 4)) - 32
        codes[start + j + 32] = ((second & 15) | ((bits & 12) << 2)) - 32
        codes[start + j + 64] = ((first >> 4) | (bits & 48)) - 32
        codes[start + j + 96] = ((second >> 4) | ((bits & 192) >> 2)) - 32
      }
    }
  }
}

const halves = halfValues()

/** Numbers `start` and on, whole blocks of them, as f32. */
export function joinBlocks(
  type: SplitType,
  { codes, scales, steps }: SplitBlocks,
  start: number,
  out: Float32Array,
): void {
  const { block, group } = splitLayouts[type]
  const size = group === 0 ? block : group
  for (let i = 0; i < out.length; i += size) {
    const d = halves[scales[((start + i) / block) | 0]!]!
    const scale = group === 0 ? d : d * steps[(start + i) / group]!
    for (let j = 0; j < size; j++) out[i + j] = scale * codes[start + i + j]!
  }
}
