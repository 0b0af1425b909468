import { internalError } from '../../util/errors.ts'
import { ggmlTypes, type GgmlType } from '../../util/ggml-types.ts'
import type { BlockFormat } from './blocks.ts'
import { q2_k, q3_k, q4_k, q5_k, q6_k } from './k-quants.ts'
import { iq4_nl, q4_0, q4_1, q5_0, q5_1, q8_0 } from './legacy.ts'

/** The block formats that are read, by their names in ggml. */
const formats = {
  Q4_0: q4_0,
  Q4_1: q4_1,
  Q5_0: q5_0,
  Q5_1: q5_1,
  Q8_0: q8_0,
  IQ4_NL: iq4_nl,
  Q2_K: q2_k,
  Q3_K: q3_k,
  Q4_K: q4_k,
  Q5_K: q5_k,
  Q6_K: q6_k,
} as const satisfies Readonly<Record<string, BlockFormat>>

export type BlockType = keyof typeof formats

export const blockTypes = Object.keys(formats) as readonly BlockType[]

export function isBlockType(name: string): name is BlockType {
  return Object.hasOwn(formats, name)
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
  formats[type].dequantize(bytes, out)
  return out
}

/** The first block with a scale that is not finite; -1 where all are, and so all numbers. */
export function indexOfBrokenBlock(type: BlockType, bytes: Uint8Array): number {
  const { scales } = formats[type]
  const { blockBytes } = layoutOf(type)
  for (let at = 0; at < bytes.length; at += blockBytes) {
    for (const scale of scales) if ((bytes[at + scale + 1]! & 0x7c) === 0x7c) return at / blockBytes
  }
  return -1
}
