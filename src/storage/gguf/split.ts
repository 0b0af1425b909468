import { halves } from './halves.ts'

/** Block formats whose codes may be held apart from their scales: those that llama.cpp gives an output head. */
export type SplitType = 'Q8_0' | 'Q6_K'

/**
 * Rows of blocks with their parts apart, so that programs can compute with slices of rows, in as many bytes. A number is code * scale of its
 * block; of Q6_K, (code - 32) * (scale of its block * step of its group of 16).
 */
export interface SplitBlocks {
  /** Elements of a row. */
  readonly width: number
  /** Signed bytes, [rows, width]; of Q6_K four codes in three bytes, [rows, 3 width / 4], as the op `sixBits` has them. */
  readonly codes: Int8Array | Uint8Array
  /** A scale for each block, in f16: [rows, width / `block`] */
  readonly scales: Uint16Array
  /** Of Q6_K, by what that of each group is multiplied: [rows, width / 16]; otherwise none. */
  readonly steps: Int8Array
}

/** Elements of a block, and what there is for each block: bytes of codes, and steps. */
export const splitLayouts: Readonly<
  Record<SplitType, { readonly block: number; readonly codes: number; readonly steps: number }>
> = {
  Q8_0: { block: 32, codes: 32, steps: 0 },
  Q6_K: { block: 256, codes: 192, steps: 16 },
}

export function isSplitType(name: string): name is SplitType {
  return Object.hasOwn(splitLayouts, name)
}

/** Memory for `rows` rows of `width` elements. */
export function emptySplit(type: SplitType, rows: number, width: number): SplitBlocks {
  const { block, codes, steps } = splitLayouts[type]
  const blocks = (rows * width) / block
  return {
    width,
    codes: type === 'Q8_0' ? new Int8Array(blocks * codes) : new Uint8Array(blocks * codes),
    scales: new Uint16Array(blocks),
    steps: new Int8Array(blocks * steps),
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

function splitQ6(bytes: Uint8Array, { codes, scales, steps, width }: SplitBlocks, first: number): void {
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const quarter = width / 4
  for (let at = 0, block = first; at < bytes.length; at += 210, block++) {
    scales[block] = bytes[at + 208]! | (bytes[at + 209]! << 8)
    steps.set(signed.subarray(at + 192, at + 208), 16 * block)
    // Of the block's eight times 32 elements, each is within one quarter of a row.
    for (let run = 0; run < 8; run++) {
      const [half, part] = [run >> 2, run & 3]
      const low = at + 64 * half + 32 * (part & 1)
      const high = at + 128 + 32 * half
      const start = 256 * block + 32 * run
      const row = Math.floor(start / width)
      const own = Math.floor((start - row * width) / quarter)
      const to = 3 * quarter * row + ((start - row * width) % quarter)
      for (let j = 0; j < 32; j++) {
        const code = ((bytes[low + j]! >> (4 * (part >> 1))) & 15) | (((bytes[high + j]! >> (2 * part)) & 3) << 4)
        if (own < 3) codes[to + own * quarter + j]! |= code
        else {
          codes[to + j]! |= (code & 3) << 6
          codes[to + quarter + j]! |= (code & 12) << 4
          codes[to + 2 * quarter + j]! |= (code & 48) << 2
        }
      }
    }
  }
}

/** Row `row` as f32. */
export function joinRow(type: SplitType, blocks: SplitBlocks, row: number, out: Float32Array): void {
  if (type === 'Q8_0') joinQ8(blocks, row, out)
  else joinQ6(blocks, row, out)
}

function joinQ8({ codes, scales, width }: SplitBlocks, row: number, out: Float32Array): void {
  const start = row * width
  for (let i = 0; i < width; i += 32) {
    const d = halves[scales[(start + i) / 32]!]!
    for (let j = i; j < i + 32; j++) out[j] = d * codes[start + j]!
  }
}

function joinQ6({ codes, scales, steps, width }: SplitBlocks, row: number, out: Float32Array): void {
  const quarter = width / 4
  const [one, two, three] = [3 * quarter * row, 3 * quarter * row + quarter, 3 * quarter * row + 2 * quarter]
  for (let i = 0; i < width; i += 16) {
    const group = (row * width + i) / 16
    const scale = halves[scales[group >> 4]!]! * steps[group]!
    for (let j = i; j < i + 16; j++) {
      const k = j - 3 * quarter
      const code =
        k < 0
          ? codes[one + j]! & 63
          : (codes[one + k]! >> 6) | ((codes[two + k]! >> 6) << 2) | ((codes[three + k]! >> 6) << 4)
      out[j] = scale * (code - 32)
    }
  }
}
