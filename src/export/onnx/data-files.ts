import { open, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { writeStreamAtomic } from '../../formats/atomic.ts'
import { internalError } from '../../util/errors.ts'
import type { PlacedTensor } from './graph.ts'
import { byteLength, type FileTensor } from './tensors.ts'

/**
 * Most bytes of a file: browsers read one into a single buffer, and 32 bits count its bytes. A larger tensor has a file of its own, which
 * other programs read.
 */
export const mostDataBytes = 2 ** 31 - 2 ** 20

/** Tensors begin at the pages of memory, so that they can be mapped. */
const alignment = 4096

type Placed = FileTensor & PlacedTensor & { readonly place: Required<PlacedTensor['place']> }

/** A file of tensors beside a model. */
export interface DataFile {
  readonly name: string
  readonly bytes: number
  readonly tensors: readonly Placed[]
}

/** Puts tensors into files, by the names that transformers.js looks for: `model.onnx_data`, `model.onnx_data_1`, ... */
export function placed(tensors: readonly FileTensor[], model: string, mostBytes = mostDataBytes): DataFile[] {
  const files: { name: string; bytes: number; tensors: Placed[] }[] = []
  for (const tensor of tensors) {
    const length = byteLength(tensor)
    let file = files.at(-1)
    if (file === undefined || (file.bytes > 0 && aligned(file.bytes) + length > mostBytes)) {
      file = { name: `${model}_data${files.length === 0 ? '' : `_${files.length}`}`, bytes: 0, tensors: [] }
      files.push(file)
    }
    const offset = aligned(file.bytes)
    file.tensors.push({ ...tensor, place: { location: file.name, offset, length } })
    file.bytes = offset + length
  }
  return files
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / alignment) * alignment
}

/** Writes a file, tensor by tensor, whole or not at all. `step` is called before each; may throw. */
export async function writeDataFile(folder: string, { name, tensors }: DataFile, step: () => void): Promise<void> {
  await writeStreamAtomic(join(folder, name), async (write) => {
    for (const tensor of tensors) {
      step()
      const { offset, length } = tensor.place
      let done = 0
      await tensor.data(async (bytes) => {
        if (done + bytes.byteLength <= length) await write(bytes, offset + done)
        done += bytes.byteLength
      })
      if (done !== length)
        throw internalError(`${name}: tensor ${tensor.name}: ${length} bytes expected, ${done} given`)
    }
  })
}

/**
 * Compares a file with what was to be in it.
 *
 * @returns how many tensors there are
 * @throws LowrankError `internal`: a byte is another.
 */
export async function checkDataFile(
  folder: string,
  { name, bytes, tensors }: DataFile,
  step: () => void,
): Promise<number> {
  const path = join(folder, name)
  const file = await open(path, 'r')
  try {
    const { size } = await file.stat()
    if (size !== bytes) throw internalError(`${path} has ${size} bytes, not ${bytes}`)
    for (const tensor of tensors) {
      step()
      let at = tensor.place.offset
      await tensor.data(async (wanted) => {
        if (Buffer.compare(await readAll(file, at, wanted.byteLength), wanted) !== 0) {
          throw internalError(`${path}: tensor ${tensor.name} was written as something else`)
        }
        at += wanted.byteLength
      })
    }
    return tensors.length
  } finally {
    await file.close()
  }
}

async function readAll(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(length)
  let done = 0
  while (done < length) {
    const { bytesRead } = await file.read(buffer, done, length - done, position + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return buffer.subarray(0, done)
}
