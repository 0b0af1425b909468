import { brief } from '../../util/format.ts'
import { ggmlTypes, type GgmlType } from '../../util/ggml-types.ts'
import { GgufMetadata, type GgufArray, type GgufValue } from './metadata.ts'

export interface GgufTensor {
  readonly name: string
  readonly type: GgmlType
  /** Outermost dimension first, as in safetensors; the file has them the other way round. */
  readonly shape: readonly number[]
  /** Where its bytes are in the file. */
  readonly offset: number
  readonly byteLength: number
}

export interface GgufHeader {
  readonly metadata: GgufMetadata
  readonly tensors: ReadonlyMap<string, GgufTensor>
}

/** Gives the `length` bytes from `offset` on, or fewer at the end of the file. */
type ReadBytes = (offset: number, length: number) => Uint8Array

interface HeaderOptions {
  readonly path: string
  /** Bytes of the whole file. */
  readonly size: number
  readonly read: ReadBytes
  readonly fail: Fail
}

type Fail = (what: string, hint?: string) => never

/** Far more than any metadata takes: a vocabulary of 262,144 tokens with scores and types is 8 MB. */
const maxHeaderBytes = 2 ** 28
/** Bounds of the format, or far beyond any real file. */
const [maxKeyBytes, maxNameBytes, maxDimensions, maxDepth, maxAlignment] = [65535, 1024, 4, 4, 2 ** 20]
const defaultAlignment = 32

/**
 * Reads and checks all that comes before the data of a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2
 * and 3: every count is bounded by the bytes that are left, keys and names are unique, tensors lie inside the file, aligned and apart.
 */
export function parseGgufHeader({ path, size, read, fail }: HeaderOptions): GgufHeader {
  const cursor = new Cursor(size, read, fail)
  checkStart(cursor, fail)
  const tensorCount = cursor.count('the number of tensors', 24)
  const valueCount = cursor.count('the number of metadata entries', 13)
  const values = new Map<string, GgufValue>()
  for (let i = 0; i < valueCount; i++) {
    const key = cursor.text(`the key of metadata entry ${i}`, maxKeyBytes)
    if (values.has(key)) fail(`metadata ${brief(key)} is there twice`)
    values.set(key, cursor.value(cursor.u32(), `metadata ${brief(key)}`, 0))
  }
  const metadata = new GgufMetadata(path, values)
  const alignment = metadata.count('general.alignment') ?? defaultAlignment
  if (alignment > maxAlignment || alignment < 8 || (alignment & (alignment - 1)) !== 0) {
    fail(`metadata general.alignment is ${alignment}; a power of two from 8 to ${maxAlignment} is expected`)
  }
  const placed = Array.from({ length: tensorCount }, (_, i) => parseTensor(cursor, i, alignment, fail))
  const dataStart = Math.ceil(cursor.position / alignment) * alignment
  const tensors = new Map<string, GgufTensor>()
  for (const tensor of placed) {
    const offset = dataStart + tensor.offset
    if (tensors.has(tensor.name)) fail(`tensor ${brief(tensor.name)} is there twice`)
    if (offset + tensor.byteLength > size) {
      fail(
        `tensor ${brief(tensor.name)} ends at byte ${offset + tensor.byteLength}, but the file has ${size}`,
        'The file is incomplete: its download was cut.',
      )
    }
    tensors.set(tensor.name, { ...tensor, offset })
  }
  checkApart([...tensors.values()], fail)
  return { metadata, tensors }
}

function checkStart(cursor: Cursor, fail: Fail): void {
  const magic = cursor.u32()
  if (magic !== 0x46554747) fail('it does not start with "GGUF"')
  const version = cursor.u32()
  if (version === 2 || version === 3) return
  if ((version & 0xffff) === 0 && version !== 0) {
    fail(
      'it was written for machines of big-endian byte order, which is not supported',
      'Convert the model again, without the option of the converter for that order.',
    )
  }
  fail(`version ${version} of the format is not supported (supported: 2, 3)`, 'Convert the model again with llama.cpp.')
}

function parseTensor(cursor: Cursor, i: number, alignment: number, fail: Fail): GgufTensor {
  const name = cursor.text(`the name of tensor ${i}`, maxNameBytes)
  const what = `tensor ${brief(name)}`
  const dimensions = cursor.u32()
  if (dimensions < 1 || dimensions > maxDimensions) fail(`${what} has ${dimensions} dimensions, 1 to 4 are possible`)
  const shape = Array.from({ length: dimensions }, () => cursor.size(`a dimension of ${what}`)).reverse()
  const id = cursor.u32()
  const type = ggmlTypes.get(id) ?? fail(`${what} is of type ${id}, which is not known`)
  const offset = cursor.size(`the offset of ${what}`)
  if (offset % alignment !== 0) fail(`${what} starts at ${offset}, which is not a multiple of ${alignment}`)
  const width = shape.at(-1) ?? 0
  const { blockElements, blockBytes } = type
  if (shape.includes(0)) fail(`${what} is empty: [${shape.join(', ')}]`)
  if (width % blockElements !== 0) {
    fail(
      `${what} has rows of ${width} elements, which is not a multiple of the ${blockElements} of a block of ${type.name}`,
    )
  }
  const byteLength = shape.reduce((total, one) => total * one, 1 / blockElements) * blockBytes
  if (!Number.isSafeInteger(byteLength) || !Number.isSafeInteger(byteLength + offset)) {
    fail(`${what} has the shape [${shape.join(', ')}], which is not possible`)
  }
  return { name, type, shape, offset, byteLength }
}

function checkApart(tensors: readonly GgufTensor[], fail: Fail): void {
  const sorted = tensors.toSorted((a, b) => a.offset - b.offset)
  sorted.forEach((tensor, i) => {
    const before = sorted[i - 1]
    if (before === undefined || before.offset + before.byteLength <= tensor.offset) return
    fail(`the tensors ${brief(before.name)} and ${brief(tensor.name)} lie over each other`)
  })
}

/** Arrays of each type of number: `[bytes of an element, ...]`. */
const numberArrays = {
  0: Uint8Array,
  1: Int8Array,
  2: Uint16Array,
  3: Int16Array,
  4: Uint32Array,
  5: Int32Array,
  6: Float32Array,
  10: BigUint64Array,
  11: BigInt64Array,
  12: Float64Array,
} as const
const [boolType, textType, arrayType] = [7, 8, 9]

/** Reads a file from its start, through a window. */
class Cursor {
  position = 0
  readonly #size: number
  readonly #read: ReadBytes
  readonly #fail: Fail
  #window: Uint8Array = new Uint8Array(0)
  #windowStart = 0

  constructor(size: number, read: ReadBytes, fail: Fail) {
    this.#size = size
    this.#read = read
    this.#fail = fail
  }

  u32(): number {
    const bytes = this.#take(4)
    return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true)
  }

  /** A u64 that must be a safe integer. */
  size(what: string): number {
    const bytes = this.#take(8)
    const value = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true)
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) this.#fail(`${what} is ${value}, which is not possible`)
    return Number(value)
  }

  /** How many things of at least `bytes` follow: no more than the file has room for. */
  count(what: string, bytes: number): number {
    const count = this.size(what)
    const left = Math.min(this.#size, maxHeaderBytes) - this.position
    if (count * bytes > left) this.#fail(`${what} is ${count}, more than the file has room for`)
    return count
  }

  text(what: string, maxBytes = maxHeaderBytes): string {
    const length = this.count(`the length of ${what}`, 1)
    if (length > maxBytes) this.#fail(`${what} has ${length} bytes, at most ${maxBytes} are possible`)
    try {
      return decoder.decode(this.#take(length))
    } catch {
      return this.#fail(`${what} is not valid UTF-8`)
    }
  }

  value(type: number, what: string, depth: number): GgufValue {
    if (type === textType) return this.text(what)
    if (type === boolType) return this.#flag(what)
    if (type === arrayType) return this.#array(what, depth)
    const [value] = this.#numbers(type, 1, what)
    if (typeof value === 'bigint') {
      const number = Number(value)
      return Number.isSafeInteger(number) ? number : value
    }
    return type === 6 ? shortest(value ?? NaN) : (value ?? NaN)
  }

  #flag(what: string): boolean {
    const [byte = 0] = this.#take(1)
    return byte > 1 ? this.#fail(`${what} is ${byte}; true (1) or false (0) is expected`) : byte === 1
  }

  #array(what: string, depth: number): GgufArray {
    if (depth >= maxDepth) this.#fail(`${what} is a list in a list, more than ${maxDepth} deep`)
    const type = this.u32()
    if (type !== textType && type !== boolType && type !== arrayType) {
      return this.#numbers(type, this.count(`the length of ${what}`, elementBytes(type)), what)
    }
    const count = this.count(`the length of ${what}`, { [textType]: 8, [boolType]: 1, [arrayType]: 12 }[type] ?? 1)
    return Array.from({ length: count }, (_, i) => this.value(type, `${what}[${i}]`, depth + 1))
  }

  #numbers(type: number, count: number, what: string) {
    const Numbers =
      numberArrays[type as keyof typeof numberArrays] ?? this.#fail(`${what} is of type ${type}, which is not known`)
    // A copy, since an array must start at a multiple of the size of its elements.
    const bytes = this.#take(count * Numbers.BYTES_PER_ELEMENT).slice()
    return new Numbers(bytes.buffer, 0, count)
  }

  #take(length: number): Uint8Array {
    const end = this.position + length
    if (end > maxHeaderBytes) this.#fail(`its metadata takes more than ${maxHeaderBytes} bytes`)
    if (end > this.#size) this.#fail(`it ends within its header, at byte ${this.#size}`)
    if (end > this.#windowStart + this.#window.byteLength) {
      this.#window = this.#read(this.position, Math.max(length, windowBytes))
      this.#windowStart = this.position
      if (this.#window.byteLength < length) this.#fail('it was cut while it was read')
    }
    const start = this.position - this.#windowStart
    this.position = end
    return this.#window.subarray(start, start + length)
  }
}

const windowBytes = 2 ** 20
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function elementBytes(type: number): number {
  return numberArrays[type as keyof typeof numberArrays]?.BYTES_PER_ELEMENT ?? 1
}

/** The shortest decimal that an f32 stands for: 0.000001 where the file has 9.99999997e-7, which a configuration said before it was converted. */
function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const decimal = Number(value.toPrecision(digits))
    if (Math.fround(decimal) === value) return decimal
  }
  return value
}
