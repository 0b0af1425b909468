import { f16ToF32 } from '../util/dtype.ts'
import { internalError } from '../util/errors.ts'
import { widened } from './formats.ts'
import { layoutOf, type BlockType } from './gguf/index.ts'
import { halfAt } from './gguf/halves.ts'
import { nBitBlock, packNBits, quantizeNBits, type NBits } from './nbit.ts'
import {
  isStored,
  type Int8Weight,
  type NBitWeight,
  type SplitWeight,
  type StoredWeight,
  type WeightOf,
} from './stored.ts'

/**
 * A weight [rows, columns] in integers of `bits` bits. One that is stored in integers with a scale for each block of as many, or for each
 * row, keeps them, where they have room; others are rounded.
 */
export function inNBits(weight: StoredWeight, bits: 8 | 4): NBitWeight {
  const { shape } = weight
  const numbers = kept(weight, bits) ?? quantizeNBits(widened(weight).data, shape, bits)
  return { storage: { kind: 'nbit', bits }, shape, numbers }
}

/** One weight with the rows of some in integers of as many bits, one after the other. */
export function joinRows(weights: readonly StoredWeight[]): StoredWeight {
  const [first] = weights
  if (first === undefined) throw internalError('no weight to join')
  if (weights.length === 1) return first
  const parts = weights.map((weight) => {
    if (!isStored(weight, 'nbit')) throw internalError('only weights in integers of a few bits are joined')
    return weight
  })
  const [{ storage }, [, columns = 0]] = [parts[0]!, first.shape]
  const codes = new Uint8Array(parts.reduce((total, { numbers }) => total + numbers.codes.length, 0))
  const scales = new Float32Array(parts.reduce((total, { numbers }) => total + numbers.scales.length, 0))
  let [code, scale, rows] = [0, 0, 0]
  for (const { numbers, shape } of parts) {
    codes.set(numbers.codes, code)
    scales.set(numbers.scales, scale)
    code += numbers.codes.length
    scale += numbers.scales.length
    rows += shape[0] ?? 0
  }
  return { storage, shape: [rows, columns], numbers: { codes, scales } }
}

function kept(weight: StoredWeight, bits: 8 | 4): NBits | undefined {
  if (isStored(weight, 'blocks')) return ofBlocks(weight, bits)
  if (bits === 4) return undefined
  if (isStored(weight, 'int8')) return ofRows(weight)
  return isStored(weight, 'split') ? ofSplit(weight) : undefined
}

/** Of blocks of 32 that are a scale in f16 and integers: how many bits these have, and what they are, from where they begin. */
const integerBlocks: Partial<
  Record<
    BlockType,
    { readonly bits: 8 | 4; readonly read: (bytes: Uint8Array, at: number, out: Int8Array, to: number) => void }
  >
> = {
  Q8_0: {
    bits: 8,
    read: (bytes, at, out, to) => {
      for (let j = 0; j < nBitBlock; j++) out[to + j] = bytes[at + j]!
    },
  },
  // Byte j has the numbers j and j + 16.
  Q4_0: {
    bits: 4,
    read: (bytes, at, out, to) => {
      for (let j = 0; j < nBitBlock / 2; j++) {
        out[to + j] = (bytes[at + j]! & 15) - 8
        out[to + j + nBitBlock / 2] = (bytes[at + j]! >> 4) - 8
      }
    },
  },
}

function ofBlocks({ storage: { type }, bytes, shape }: WeightOf<'blocks'>, bits: 8 | 4): NBits | undefined {
  const own = integerBlocks[type]
  if (own === undefined || own.bits > bits) return undefined
  const { blockBytes } = layoutOf(type)
  const count = bytes.length / blockBytes
  const [integers, scales] = [new Int8Array(count * nBitBlock), new Float32Array(count)]
  for (let block = 0; block < count; block++) {
    scales[block] = halfAt(bytes, block * blockBytes)
    own.read(bytes, block * blockBytes + 2, integers, block * nBitBlock)
  }
  return packNBits(integers, scales, shape, bits)
}

function ofRows({ data, scale, shape }: Int8Weight): NBits {
  const [, columns = 0] = shape
  const blocks = Math.ceil(columns / nBitBlock)
  const scales = Float32Array.from({ length: scale.length * blocks }, (_, i) => scale[Math.floor(i / blocks)]! / 127)
  return packNBits(data, scales, shape, 8)
}

function ofSplit({ blocks: { codes, scales }, shape }: SplitWeight): NBits | undefined {
  return codes instanceof Int8Array ? packNBits(codes, f16ToF32(scales), shape, 8) : undefined
}
