import type { GgufValue } from './metadata.ts'

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
  | readonly [type: Exclude<ValueType, 'list'>, value: Exclude<GgufValue, object>]
  | readonly [type: 'list', element: ValueType, values: ArrayLike<unknown>]

/** What a file is to say of itself, by key, in this order. */
export type TypedMetadata = Readonly<Record<string, TypedValue>>

/** Numbers and texts as they stand in a file. */
export const u32 = (value: number): Buffer => typed('u32', value)
export const u64 = (value: number | bigint): Buffer => typed('u64', BigInt(value))
export const text = (value: string): Buffer => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)])

function typed(type: ValueType, value: unknown): Buffer {
  if (type === 'text') return text(String(value))
  if (type === 'list') return listOf(value as readonly [ValueType, readonly unknown[]])
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
  return bytes.subarray(0, write[type]())
}

function listOf([element, values]: readonly [ValueType, ArrayLike<unknown>]): Buffer {
  const start = Buffer.concat([u32(valueTypes[element]), u64(values.length)])
  return Buffer.concat([start, ...Array.from(values, (value) => typed(element, value))])
}

/** A metadata entry. */
export function entry(key: string, value: TypedValue): Buffer {
  const [type, ...rest] = value
  return Buffer.concat([text(key), u32(valueTypes[type]), typed(type, type === 'list' ? rest : rest[0])])
}

/** The description of a tensor: its dimensions are innermost first. */
export function tensorEntry(
  name: string,
  dimensions: readonly (number | bigint)[],
  type: number,
  offset: number,
): Buffer {
  return Buffer.concat([text(name), u32(dimensions.length), ...dimensions.map(u64), u32(type), u64(offset)])
}

/** All before the entries and the descriptions of tensors. */
export function start(tensorCount: number | bigint, valueCount: number | bigint, version = 3): Buffer {
  return Buffer.concat([Buffer.from('GGUF'), u32(version), u64(tensorCount), u64(valueCount)])
}
