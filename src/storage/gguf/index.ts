import { internalError } from '../../util/errors.ts'
import { ggmlTypes, type GgmlType } from '../../util/ggml-types.ts'
import { type BlockLayout, unpackBlocks } from '../kernels/kernels.ts'

/** A block format of GGUF, as `ggml-quants.c` of llama.cpp defines it. */
interface BlockFormat {
  readonly kernel: BlockLayout['kernel']
  /** Where in a block its scales are, in f16: if these are finite, so are its numbers. */
  readonly scales: readonly number[]
}

/** The block formats that are read, by their names in ggml. */
const formats = {
  Q4_0: { kernel: 'q4_0', scales: [0] },
  Q4_1: { kernel: 'q4_1', scales: [0, 2] },
  Q5_0: { kernel: 'q5_0', scales: [0] },
  Q5_1: { kernel: 'q5_1', scales: [0, 2] },
  Q8_0: { kernel: 'q8_0', scales: [0] },
  IQ4_NL: { kernel: 'iq4_nl', scales: [0] },
  Q2_K: { kernel: 'q2_k', scales: [80, 82] },
  Q3_K: { kernel: 'q3_k', scales: [108] },
  Q4_K: { kernel: 'q4_k', scales: [0, 2] },
  Q5_K: { kernel: 'q5_k', scales: [0, 2] },
  Q6_K: { kernel: 'q6_k', scales: [208] },
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
  unpackBlocks({ ...layoutOf(type), kernel: formats[type].kernel }, bytes, out)
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
