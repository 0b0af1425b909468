import type { TensorDtype, TensorInfo, TensorReader } from '../../formats/safetensors.ts'
import { bytesOf } from '../../util/dtype.ts'
import { LowrankError } from '../../util/errors.ts'
import { elements } from '../../util/shape.ts'

/** A linear layer's weight, [out, in], as config.json promises it. */
export interface QuantizedSpec {
  readonly name: string
  readonly shape: readonly number[]
}

/** A tensor that a quantized weight consists of, and what it has to be. */
interface PartSpec {
  readonly name: string
  readonly dtype: TensorDtype
  readonly elements: number
  /** What it holds: `the scales`. */
  readonly what: string
}

const again = 'Download the model folder again, or save the quantized model again.'

/** Checks that a part is there, of the right dtype and size. */
export function checkPart(reader: TensorReader, weight: string, part: PartSpec): TensorInfo {
  const info = reader.tensors.get(part.name)
  const expected = `${part.dtype} with ${part.elements} ${part.elements === 1 ? 'element' : 'elements'}`
  if (info === undefined) {
    const file = reader.tensors.get(weight)?.file ?? ''
    throw new LowrankError(
      'model',
      `${file}: tensor ${part.name} is missing; expected ${expected}, ${part.what} of ${weight}`,
      { hint: again },
    )
  }
  if (info.dtype !== part.dtype || elements(info.shape) !== part.elements) {
    const found = `${info.dtype} [${info.shape.join(', ')}]`
    throw new LowrankError(
      'model',
      `${info.file}: tensor ${part.name} is ${found}; expected ${expected}, ${part.what}`,
      {
        hint: again,
      },
    )
  }
  return info
}

/** The error for a part whose contents cannot be: `found` and `expected` say how. */
export function badPart(reader: TensorReader, name: string, found: string, expected: string): LowrankError {
  const file = reader.tensors.get(name)?.file ?? ''
  return new LowrankError('model', `${file}: tensor ${name}: found ${found}, expected ${expected}`, { hint: again })
}

type Bytes = Uint8Array | Int8Array

/** Reads a tensor of single bytes, into the memory of `into` where that is given. All calls to the system are made before it returns. */
export async function readBytes(reader: TensorReader, name: string, into?: Bytes): Promise<Uint8Array> {
  return reader.read(name, into && bytesOf(into))
}

/** The same for a tensor of f32. */
export async function readFloats(reader: TensorReader, name: string, into?: Float32Array): Promise<Float32Array> {
  const bytes = await reader.read(name, into && bytesOf(into))
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
}

/** Refuses scales that are no finite numbers from 0 on. */
export function checkScales(reader: TensorReader, name: string, scales: Float32Array): void {
  const index = scales.findIndex((scale) => !(scale >= 0 && scale < Infinity))
  if (index !== -1) throw badPart(reader, name, `${scales[index]} in element ${index}`, 'finite scales, 0 or more')
}
