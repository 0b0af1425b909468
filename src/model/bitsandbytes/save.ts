import type { Quantization } from '../../config/index.ts'
import type { TensorSource } from '../../formats/safetensors.ts'
import { fourBitTables, nestedBlockSize, type FourBit } from '../../storage/fourbit.ts'
import { dynamicMap } from '../../storage/blockwise.ts'
import { isStored, type FourBitWeight, type Int8Weight, type StoredWeight } from '../../storage/stored.ts'
import { bytesOf, type FloatDtype, torchNames } from '../../util/dtype.ts'
import { internalError } from '../../util/errors.ts'
import { quantStateKey } from './fourbit.ts'
import type { QuantizedSpec } from './parts.ts'
import { elements } from '../../util/shape.ts'

interface SavedWeight extends QuantizedSpec {
  readonly quantization: Quantization
  /** Of the weight before it was quantized. */
  readonly dtype: FloatDtype
  /** Makes the quantized weight, when the first of its tensors is written; it is dropped after the last. */
  readonly make: () => Promise<StoredWeight>
}

/** The tensors in which bitsandbytes saves a quantized weight, to be written one after the other. */
export function savedTensors(weight: SavedWeight): TensorSource[] {
  const { name, shape, quantization } = weight
  const [rows = 0, columns = 0] = shape
  let made: Promise<StoredWeight> | undefined
  const parts = quantization.kind === '4bit' ? fourBitParts(weight, quantization) : int8Parts(name, rows, columns)
  return parts.map(({ data, ...part }, i) => ({
    ...part,
    data: async () => {
      made ??= weight.make()
      const stored = await made
      if (i === parts.length - 1) made = undefined
      return data(stored)
    },
  }))
}

type Part = Omit<TensorSource, 'data'> & { readonly data: (stored: StoredWeight) => Uint8Array }

function fourBitParts(
  { name, shape, dtype }: SavedWeight,
  { quantType, blockSize, doubleQuant }: Quantization & { readonly kind: '4bit' },
): Part[] {
  const count = elements(shape)
  const blocks = Math.ceil(count / blockSize)
  const f32 = (key: string, elements: number, pick: (packed: FourBit) => Float32Array): Part => ({
    name: `${name}.${key}`,
    dtype: 'F32',
    shape: [elements],
    data: (stored) => bytesOf(pick(fourBit(stored).packed)),
  })
  const u8 = (key: string, dims: number[], pick: (packed: FourBit) => Uint8Array): Part => ({
    name: `${name}${key}`,
    dtype: 'U8',
    shape: dims,
    data: (stored) => pick(fourBit(stored).packed),
  })
  const scales = doubleQuant
    ? [
        u8('.absmax', [blocks], (packed) => nested(packed).codes),
        f32('nested_absmax', Math.ceil(blocks / nestedBlockSize), ({ scales }) => scales.absmax),
        f32('nested_quant_map', 256, () => dynamicMap(true)),
      ]
    : [f32('absmax', blocks, ({ scales }) => scales.absmax)]
  const state = { quant_type: quantType, blocksize: blockSize, dtype: torchNames[dtype], shape }
  const stateBytes = (packed: FourBit): Buffer => {
    if (!doubleQuant) return Buffer.from(JSON.stringify(state))
    const more = { nested_blocksize: nestedBlockSize, nested_dtype: 'float32', nested_offset: nested(packed).offset }
    return Buffer.from(JSON.stringify({ ...state, ...more }))
  }
  // The size is needed before the offset is known: spaces, which JSON ignores, fill up to that of the longest number.
  const longest = JSON.stringify({
    ...state,
    nested_blocksize: nestedBlockSize,
    nested_dtype: 'float32',
    nested_offset: 0,
  })
  const bytes = doubleQuant ? longest.length + longestNumber : JSON.stringify(state).length
  return [
    u8('', [Math.ceil(count / 2), 1], ({ codes }) => codes),
    ...scales,
    f32('quant_map', 16, () => fourBitTables[quantType]),
    u8(`.${quantStateKey}${quantType}`, [bytes], (packed) => padded(stateBytes(packed), bytes)),
  ]
}

/** Characters of `-1.7976931348623157e+308`, and one to spare. */
const longestNumber = 25

function padded(text: Buffer, bytes: number): Buffer {
  if (text.length > bytes) throw internalError(`${text.toString()} takes more than ${bytes} bytes`)
  return Buffer.concat([text, Buffer.alloc(bytes - text.length, ' ')])
}

function int8Parts(name: string, rows: number, columns: number): Part[] {
  const module = name.slice(0, -'.weight'.length)
  return [
    { name, dtype: 'I8', shape: [rows, columns], data: (stored) => bytesOf(int8(stored).data) },
    { name: `${module}.SCB`, dtype: 'F32', shape: [rows], data: (stored) => bytesOf(int8(stored).scale) },
    // Row by row.
    { name: `${module}.weight_format`, dtype: 'U8', shape: [], data: () => Uint8Array.of(0) },
  ]
}

function fourBit(stored: StoredWeight): FourBitWeight {
  if (isStored(stored, '4bit')) return stored
  throw internalError('a weight to be saved in 4 bits is not quantized so')
}

function int8(stored: StoredWeight): Int8Weight {
  if (isStored(stored, 'int8')) return stored
  throw internalError('a weight to be saved in 8 bits is not quantized so')
}

function nested({ scales }: FourBit): FourBit['scales'] & { readonly codes: Uint8Array; readonly offset: number } {
  if ('codes' in scales) return scales
  throw internalError('a weight to be saved with double quantization has plain scales')
}
