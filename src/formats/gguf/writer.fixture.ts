import { writeFileSync } from 'node:fs'
import { ggmlTypes } from '../../util/ggml-types.ts'

/** Numbers of the types of values. */
export const valueTypes = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  text: 8,
  list: 9,
  u64: 10,
  i64: 11,
  f64: 12,
} as const

export type ValueType = keyof typeof valueTypes

/** A value with its type; of lists, the type of their elements and the elements. */
export type TypedValue =
  | readonly [type: Exclude<ValueType, 'list'>, value: string | number | bigint | boolean]
  | readonly [type: 'list', element: ValueType, values: readonly unknown[]]

export interface TestTensor {
  readonly name: string
  /** `Q4_K`, ... */
  readonly type: string
  /** Outermost first. */
  readonly shape: readonly number[]
  readonly data: Uint8Array
}

export interface TestGguf {
  readonly metadata?: Readonly<Record<string, TypedValue>>
  readonly tensors?: readonly TestTensor[]
  readonly version?: number
  readonly alignment?: number
}

/** A text as u8, u32 and so on: numbers as they stand in a file. */
export const u32 = (value: number): Buffer => typed('u32', value)
export const u64 = (value: number | bigint): Buffer => typed('u64', BigInt(value))
export const text = (value: string): Buffer => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)])

function typed(type: ValueType, value: unknown): Buffer {
  const bytes = Buffer.alloc(8)
  const write: Readonly<Record<Exclude<ValueType, 'text' | 'list'>, () => number>> = {
    u8: () => bytes.writeUInt8(Number(value)),
    i8: () => bytes.writeInt8(Number(value)),
    u16: () => bytes.writeUInt16LE(Number(value)),
    i16: () => bytes.writeInt16LE(Number(value)),
    u32: () => bytes.writeUInt32LE(Number(value)),
    i32: () => bytes.writeInt32LE(Number(value)),
    f32: () => bytes.writeFloatLE(Number(value)),
    bool: () => bytes.writeUInt8(value === true ? 1 : 0),
    u64: () => bytes.writeBigUInt64LE(BigInt(value as bigint)),
    i64: () => bytes.writeBigInt64LE(BigInt(value as bigint)),
    f64: () => bytes.writeDoubleLE(Number(value)),
  }
  if (type === 'text') return text(String(value))
  if (type === 'list') return listOf(value as readonly [ValueType, readonly unknown[]])
  return bytes.subarray(0, write[type]())
}

function listOf([element, values]: readonly [ValueType, readonly unknown[]]): Buffer {
  return Buffer.concat([u32(valueTypes[element]), u64(values.length), ...values.map((value) => typed(element, value))])
}

/** A metadata entry. */
export function entry(key: string, value: TypedValue): Buffer {
  const [type, ...rest] = value
  return Buffer.concat([text(key), u32(valueTypes[type]), typed(type, type === 'list' ? rest : rest[0])])
}

/** The description of a tensor, which is enough to write a wrong one. */
export function tensorEntry(
  name: string,
  dimensions: readonly (number | bigint)[],
  type: number,
  offset: number,
): Buffer {
  return Buffer.concat([text(name), u32(dimensions.length), ...dimensions.map(u64), u32(type), u64(offset)])
}

/** All before the tensors' descriptions. */
export function start(tensorCount: number | bigint, valueCount: number | bigint, version = 3): Buffer {
  return Buffer.concat([Buffer.from('GGUF'), u32(version), u64(tensorCount), u64(valueCount)])
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
