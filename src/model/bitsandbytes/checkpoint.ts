import type { Quantization } from '../../config/index.ts'
import type { TensorReader } from '../../formats/safetensors.ts'
import { isStored, type Int8Weight, type Storage, type StoredWeight } from '../../storage/stored.ts'
import { LowrankError } from '../../util/errors.ts'
import type { PromisedBitsAndBytes } from './config.ts'
import { openFourBit } from './fourbit.ts'
import { badPart, checkPart, checkScales, readBytes, readFloats, type QuantizedSpec } from './parts.ts'

/** A quantized weight of a checkpoint, its description checked; `load` as in `WeightSource`. */
export interface QuantizedEntry {
  readonly storage: Storage
  readonly load: (reuse?: StoredWeight) => Promise<StoredWeight>
}

export interface QuantizedEntries {
  /** All are quantized in the same way. */
  readonly quantization: Quantization
  readonly entries: ReadonlyMap<string, QuantizedEntry>
}

/**
 * Finds the quantized ones among `linears` in a checkpoint that transformers and bitsandbytes saved, and checks that they are what
 * config.json promises. Reads no codes and no scales.
 */
export async function openQuantized(
  reader: TensorReader,
  { folder, linears, promised }: { folder: string; linears: readonly QuantizedSpec[]; promised: PromisedBitsAndBytes },
): Promise<QuantizedEntries> {
  const entries = new Map<string, QuantizedEntry>()
  const quantized = linears.filter(({ name }) => isQuantized(reader, name))
  const [first] = quantized
  if (first === undefined) {
    throw new LowrankError('model', `${folder}: config.json has quantization_config, but no weight is quantized`, {
      hint: 'Remove quantization_config from config.json, or take the weights that belong to it.',
    })
  }
  if (promised.kind === '8bit') {
    for (const spec of quantized) entries.set(spec.name, await openInt8(reader, spec))
    return { quantization: { kind: '8bit' }, entries }
  }
  const formats = await Promise.all(quantized.map(async (spec) => ({ spec, ...(await openFourBit(reader, spec)) })))
  const common = formats[0]?.format ?? { quantType: 'nf4', blockSize: 64, doubleQuant: false }
  const expected = {
    quantType: promised.quantType ?? common.quantType,
    blockSize: common.blockSize,
    doubleQuant: promised.doubleQuant ?? common.doubleQuant,
  }
  for (const { spec, format, load } of formats) {
    for (const key of ['quantType', 'blockSize', 'doubleQuant'] as const) {
      if (format[key] === expected[key]) continue
      const why = key === 'blockSize' ? `as ${first.name} has` : `as config.json says (${configKeys[key]})`
      throw badPart(reader, spec.name, `${labels[key]} ${format[key]}`, `${expected[key]}, ${why}`)
    }
    entries.set(spec.name, { storage: { kind: '4bit', ...format }, load })
  }
  return { quantization: { kind: '4bit', ...expected }, entries }
}

const labels = { quantType: 'quantization type', blockSize: 'block size', doubleQuant: 'double quantization' } as const
const configKeys = { quantType: 'bnb_4bit_quant_type', doubleQuant: 'bnb_4bit_use_double_quant' } as const

/** Codes may go by any dtype, also by that of floats, but never without what describes them. */
function isQuantized(reader: TensorReader, name: string): boolean {
  const info = reader.tensors.get(name)
  if (info === undefined) return false
  return !['F32', 'F16', 'BF16', 'F64'].includes(info.dtype) || reader.tensors.has(`${name}.absmax`)
}

async function openInt8(reader: TensorReader, { name, shape }: QuantizedSpec): Promise<QuantizedEntry> {
  const [rows = 0, columns = 0] = shape
  const module = name.slice(0, -'.weight'.length)
  const [scales, layout] = [`${module}.SCB`, `${module}.weight_format`]
  const { shape: found } = checkPart(reader, name, { name, dtype: 'I8', elements: rows * columns, what: 'the weights' })
  if (found.join() !== shape.join()) {
    throw badPart(reader, name, `shape [${found.join(', ')}]`, `[${shape.join(', ')}], as config.json has it`)
  }
  checkPart(reader, name, { name: scales, dtype: 'F32', elements: rows, what: 'a scale for each row' })
  // Only early versions leave it out.
  if (reader.tensors.has(layout)) {
    checkPart(reader, name, { name: layout, dtype: 'U8', elements: 1, what: 'the order of the weights' })
    const [format] = await reader.read(layout)
    if (format !== 0) throw badPart(reader, layout, `${format}, an order for one kind of GPU`, '0, row by row')
  }
  const storage = { kind: 'int8' } as const
  let checked = false
  return {
    storage,
    load: async (reuse): Promise<Int8Weight> => {
      const fits = reuse !== undefined && isStored(reuse, 'int8') && reuse.shape.join() === shape.join()
      const old = fits ? reuse : undefined
      const [bytes, scale] = await Promise.all([
        readBytes(reader, name, old?.data),
        readFloats(reader, scales, old?.scale),
      ])
      if (!checked) checkScales(reader, scales, scale)
      checked = true
      return { storage, shape, data: new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength), scale }
    },
  }
}
