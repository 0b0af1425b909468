import { internalError } from '../../util/errors.ts'
import { ggmlTypes, type GgmlType } from '../../util/ggml-types.ts'
import { unpackBlocks } from '../kernels/kernels.ts'

/**
 * The block formats that are read, by their names in ggml, as `ggml-quants.c` of llama.cpp defines them: where in a block its scales are, in
 * f16. If these are finite, so are its numbers.
 */
const scalesOf = {
  Q4_0: [0],
  Q4_1: [0, 2],
  Q5_0: [0],
  Q5_1: [0, 2],
  Q8_0: [0],
  IQ4_NL: [0],
  Q2_K: [80, 82],
  Q3_K: [108],
  Q4_K: [0, 2],
  Q5_K: [0, 2],
  Q6_K: [208],
} as const satisfies Readonly<Record<string, readonly number[]>>

export type BlockType = keyof typeof scalesOf

export const blockTypes = Object.keys(scalesOf) as readonly BlockType[]

export function isBlockType(name: string): name is BlockType {
  return Object.hasOwn(scalesOf, name)
}

const layouts = new Map([...ggmlTypes.values()].map((layout) => [layout.name, layout]))

/** Elements and bytes of a block. */
export function layoutOf(type: BlockType): GgmlType {
  const layout = layouts.get(type)
  if (layout === undefined) throw internalError(`blocks of ${type} have no layout`)
  return layout
}

/** Numbers as blocks: `bytes` holds whole blocks, `out` an element for each number. Bit for bit the reference of llama.cpp. */
export function dequantizeBlocks(type: BlockType, bytes: Uint8Array, out: Float32Array): Float32Array {
  // A format without a kernel of its name does not compile.
  unpackBlocks(type.toLowerCase() as Lowercase<BlockType>, layoutOf(type), bytes, out)
  return out
}

/** The first block with a scale that is not finite; -1 where all are, and so all numbers. */
export function indexOfBrokenBlock(type: BlockType, bytes: Uint8Array): number {
  const { blockBytes } = layoutOf(type)
  for (let at = 0; at < bytes.length; at += blockBytes) {
    for (const scale of scalesOf[type]) if ((bytes[at + scale + 1]! & 0x7c) === 0x7c) return at / blockBytes
  }
  return -1
}
