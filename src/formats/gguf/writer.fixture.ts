import { writeFileSync } from 'node:fs'
import { ggmlTypes } from '../../util/ggml-types.ts'
import { entry, start, tensorEntry, type TypedMetadata } from './values.ts'

/*
 * GGUF files of any bytes, right or wrong; those of the product are written by `write.ts`.
 */

export interface TestTensor {
  readonly name: string
  /** `Q4_K`, ... */
  readonly type: string
  /** Outermost first. */
  readonly shape: readonly number[]
  readonly data: Uint8Array
}

export interface TestGguf {
  readonly metadata?: TypedMetadata
  readonly tensors?: readonly TestTensor[]
  readonly version?: number
  readonly alignment?: number
}

/** The bytes of a GGUF file. */
export function gguf({ metadata = {}, tensors = [], version = 3, alignment = 32 }: TestGguf): Buffer {
  const aligned = (size: number): number => Math.ceil(size / alignment) * alignment
  const ids = new Map([...ggmlTypes].map(([id, { name }]) => [name, id]))
  const entries = Object.entries(metadata).map(([key, value]) => entry(key, value))
  let end = 0
  const described = tensors.map(({ name, type, shape, data }) => {
    const offset = end
    end = aligned(end + data.byteLength)
    return tensorEntry(name, shape.toReversed(), ids.get(type) ?? 255, offset)
  })
  const header = Buffer.concat([start(tensors.length, entries.length, version), ...entries, ...described])
  const padded = (bytes: Uint8Array): Buffer =>
    Buffer.concat([bytes, Buffer.alloc(aligned(bytes.byteLength) - bytes.byteLength)])
  return Buffer.concat([padded(header), ...tensors.map(({ data }) => padded(data))])
}

export function writeGguf(path: string, file: TestGguf): string {
  writeFileSync(path, gguf(file))
  return path
}
