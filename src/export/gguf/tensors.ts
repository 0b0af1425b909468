import { type Architecture, conversionOf, ggufName } from '../../formats/gguf/architectures.ts'
import { reorderRows } from '../../formats/gguf/rows.ts'
import type { GgufTensorSource } from '../../formats/gguf/write.ts'
import type { DecoderConfig } from '../../model/decoder.ts'
import { embeddingName, headName } from '../../model/names.ts'
import type { WeightSource } from '../../model/sources/source.ts'
import type { WeightSpec } from '../../model/weight-specs.ts'
import { dequantizeBlocks, indexOfBrokenBlock } from '../../storage/gguf/index.ts'
import { blockWidth, quantizeBlocks, type WrittenBlock, writtenBlocks } from '../../storage/gguf/quantize.ts'
import { bytesToF32, f32ToBytes, type FloatDtype, indexOfOverflow } from '../../util/dtype.ts'
import { internalError, LowrankError } from '../../util/errors.ts'
import type { ExportDtype } from '../forms.ts'
import { rowsOf } from '../rows.ts'

export type TensorType = FloatDtype | WrittenBlock

/** What matrices become, and embedding and head; and how a file calls that as a whole. */
const types: Readonly<Record<ExportDtype, { matrices: TensorType; ends: TensorType; fileType: number }>> = {
  f32: { matrices: 'F32', ends: 'F32', fileType: 0 },
  f16: { matrices: 'F16', ends: 'F16', fileType: 1 },
  bf16: { matrices: 'BF16', ends: 'BF16', fileType: 32 },
  q8_0: { matrices: 'Q8_0', ends: 'Q8_0', fileType: 7 },
  // The head decides between tokens: it keeps more.
  q4_0: { matrices: 'Q4_0', ends: 'Q8_0', fileType: 2 },
}

export function fileTypeOf(dtype: ExportDtype): number {
  return types[dtype].fileType
}

/** How a weight is stored: vectors in f32, as llama.cpp asks for; rows that are no whole blocks in f16. */
export function typeOf({ name, shape }: WeightSpec, config: DecoderConfig, dtype: ExportDtype): TensorType {
  if (shape.length < 2) return 'F32'
  const { matrices, ends } = types[dtype]
  const type = name === headName || name === embeddingName(config) ? ends : matrices
  return type in writtenBlocks && (shape[1] ?? 0) % blockWidth !== 0 ? 'F16' : type
}

/** The name of a weight in the file. That of the part for texts of a larger model is the name of a model of texts. */
export function tensorName(architecture: Architecture, config: DecoderConfig, weight: string): string {
  const plain = weight.startsWith(`${config.trunk}.`) ? `model.${weight.slice(config.trunk.length + 1)}` : weight
  const name = ggufName(architecture, plain)
  if (name === undefined) throw internalError(`${weight} has no name in a GGUF file`)
  return name
}

/** How many heads have rows in the order of the file; 0: none. */
export function headsOf(architecture: Architecture, config: DecoderConfig, tensor: string): number {
  const { interleaved } = conversionOf(architecture, tensor)
  if (interleaved === undefined) return 0
  return interleaved === 'queries' ? config.numAttentionHeads : config.numKeyValueHeads
}

interface TensorOptions {
  readonly architecture: Architecture
  readonly dtype: ExportDtype
  /** Called before each weight is read; may throw. */
  readonly step: () => void
}

/** All weights as tensors of a file, as the converter of llama.cpp makes them. */
export function modelTensors(source: WeightSource, { architecture, dtype, step }: TensorOptions): GgufTensorSource[] {
  const { config } = source
  return source.specs.map((spec): GgufTensorSource => {
    const { shape } = spec
    const name = tensorName(architecture, config, spec.name)
    const type = typeOf(spec, config, dtype)
    const { offset } = conversionOf(architecture, name)
    const heads = headsOf(architecture, config, name)
    return {
      name,
      type,
      shape,
      data: async (write) => {
        step()
        const parts: Uint8Array[] = []
        for await (const { data } of rowsOf(source, spec)) {
          const bytes = encode(offset === 0 ? data : shifted(data, offset), { type, weight: spec.name })
          if (heads === 0) await write(bytes)
          else parts.push(Uint8Array.from(bytes))
        }
        if (heads === 0) return
        const whole = Uint8Array.from(Buffer.concat(parts))
        reorderRows(whole, shape[0] ?? 0, heads, 'file')
        await write(whole)
      },
    }
  })
}

function shifted(data: Float32Array, by: number): Float32Array {
  return data.map((value) => value + by)
}

/**
 * f32 numbers as a tensor has them; whole rows.
 *
 * @throws LowrankError `config`: one is too large for the type.
 */
export function encode(
  data: Float32Array,
  { type, weight }: { readonly type: TensorType; readonly weight: string },
): Uint8Array {
  if (type === 'Q8_0' || type === 'Q4_0') {
    const bytes = quantizeBlocks(type, data)
    const broken = indexOfBrokenBlock(type, bytes)
    if (broken === -1) return bytes
    throw tooLarge(weight, `a number of block ${broken}`, type)
  }
  const large = indexOfOverflow(data, type)
  if (large !== -1) throw tooLarge(weight, String(data[large]), type)
  return f32ToBytes(data, type)
}

/** The numbers that a tensor stands for. */
export function decode(bytes: Uint8Array, type: TensorType): Float32Array {
  if (type === 'F32' || type === 'F16' || type === 'BF16') return bytesToF32(bytes, type)
  const count = (bytes.length / (type === 'Q8_0' ? 34 : 18)) * blockWidth
  return dequantizeBlocks(type, bytes, new Float32Array(count))
}

function tooLarge(weight: string, what: string, type: TensorType): LowrankError {
  return new LowrankError('config', `dtype: ${what} of ${weight} is too large for ${type}`, {
    hint: 'Take bf16 or f32, which hold larger numbers.',
  })
}
