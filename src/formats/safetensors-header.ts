import { type ErrorCode, LowrankError } from '../util/errors.ts'
import { isJsonObject, parseJson, type JsonObject } from './json.ts'

/** Bytes an element takes, of every dtype of the safetensors format that has whole bytes. */
const dtypeBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  F8_E8M0: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  I64: 8,
  U64: 8,
  F64: 8,
  C64: 8,
} as const

export type TensorDtype = keyof typeof dtypeBytes

export interface TensorInfo {
  readonly name: string
  readonly dtype: TensorDtype
  readonly shape: readonly number[]
  /** The file that holds it, and where in that file its bytes are. */
  readonly file: string
  readonly offset: number
  readonly byteLength: number
}

export interface Header {
  readonly tensors: ReadonlyMap<string, TensorInfo>
  readonly metadata: Readonly<Record<string, string>>
}

/** The format's own limit, in bytes of JSON. */
export const maxHeaderBytes = 100_000_000

/** Bytes of a tensor; undefined where a dimension is not a count or the product is no safe integer. */
export function tensorBytes(dtype: TensorDtype, shape: readonly unknown[]): number | undefined {
  let bytes: number = dtypeBytes[dtype]
  let safe = true
  for (const dimension of shape) {
    if (typeof dimension !== 'number' || !Number.isSafeInteger(dimension) || dimension < 0) return undefined
    bytes *= dimension
    safe &&= Number.isSafeInteger(bytes)
  }
  return safe ? bytes : undefined
}

/**
 * Parses and checks a safetensors header (the JSON after the 8 length bytes) against the rules of the format: known
 * dtypes, byte ranges that equal shape times element size, lie inside the file and cover it without holes or overlaps,
 * unique names. `fileBytes` is the size of the whole file.
 */
export function parseHeader(json: string, file: string, fileBytes: number, code: ErrorCode): Header {
  const fail = (what: string, cause?: unknown): never => {
    throw new LowrankError(code, `${file}: ${what}`, { cause, hint: damagedHint })
  }
  const dataStart = 8 + Buffer.byteLength(json)
  const root = parseObject(json, fail)
  const tensors = new Map<string, TensorInfo>()
  let metadata: Record<string, string> = {}
  for (const [name, entry] of Object.entries(root)) {
    if (!isJsonObject(entry)) return fail(`header entry ${quote(name)} is not an object`)
    if (name === '__metadata__') {
      for (const [key, value] of Object.entries(entry)) {
        if (typeof value !== 'string') return fail(`metadata ${quote(key)} is not a string`)
      }
      metadata = Object.fromEntries(Object.entries(entry)) as Record<string, string>
    } else {
      tensors.set(name, parseEntry(name, entry, { file, dataStart, dataBytes: fileBytes - dataStart, fail }))
    }
  }
  checkCoverage(tensors, dataStart, fileBytes, fail)
  return { tensors, metadata }
}

/** Header JSON of tensors laid out one after the other in the order given, padded to a multiple of 8 bytes. */
export function formatHeader(
  tensors: readonly { name: string; dtype: TensorDtype; shape: readonly number[]; byteLength: number }[],
  metadata: Readonly<Record<string, string>>,
): Buffer {
  const root = new Map<string, unknown>()
  if (Object.keys(metadata).length > 0) root.set('__metadata__', metadata)
  let end = 0
  for (const { name, dtype, shape, byteLength } of tensors) {
    root.set(name, { dtype, shape, data_offsets: [end, (end += byteLength)] })
  }
  const entries = [...root].map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`)
  const json = Buffer.from(`{${entries.join(',')}}`)
  const padded = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, ' ')
  padded.writeBigUInt64LE(BigInt(padded.length - 8), 0)
  json.copy(padded, 8)
  return padded
}

/** Elements of a wider dtype come first, so that each tensor starts at a multiple of its element size. */
export function elementBytes(dtype: TensorDtype): number {
  return dtypeBytes[dtype]
}

const damagedHint = 'The file is damaged or was not written by safetensors; download or save it again.'

type Fail = (what: string, cause?: unknown) => never

function parseObject(json: string, fail: Fail): JsonObject {
  let root: unknown
  try {
    root = parseJson(json)
  } catch (cause) {
    return fail('the header is not valid JSON', cause)
  }
  if (!isJsonObject(root)) return fail('the header is not a JSON object')
  const keys = topLevelKeys(json)
  if (keys.length > Object.keys(root).length) {
    const seen = new Set<string>()
    const twice = keys.find((key) => seen.size === seen.add(key).size)
    return fail(`tensor ${quote(twice ?? '')} is listed twice in the header`)
  }
  return root
}

function parseEntry(
  name: string,
  entry: JsonObject,
  { file, dataStart, dataBytes, fail }: { file: string; dataStart: number; dataBytes: number; fail: Fail },
): TensorInfo {
  const { dtype, shape, data_offsets: offsets } = entry
  const tensor = `tensor ${quote(name)}`
  if (typeof dtype !== 'string' || !isDtype(dtype)) return fail(`${tensor}: dtype ${show(dtype)} is not known`)
  if (!Array.isArray(shape) || shape.length > 16) return fail(`${tensor}: shape ${show(shape)} is not a list of sizes`)
  const byteLength = tensorBytes(dtype, shape)
  if (byteLength === undefined) return fail(`${tensor}: shape ${show(shape)} is not possible`)
  if (!Array.isArray(offsets) || offsets.length !== 2)
    return fail(`${tensor}: data_offsets ${show(offsets)} is no pair`)
  const [begin, end] = offsets as unknown[]
  if (!isOffset(begin) || !isOffset(end) || begin > end) {
    return fail(`${tensor}: data_offsets ${show(offsets)} is not a byte range`)
  }
  if (end > dataBytes) {
    return fail(`${tensor} ends at byte ${dataStart + end}, the file at byte ${dataStart + dataBytes}: it is cut short`)
  }
  if (end - begin !== byteLength) {
    return fail(`${tensor}: ${dtype} ${show(shape)} takes ${byteLength} bytes, data_offsets hold ${end - begin}`)
  }
  return { name, dtype, shape: shape as number[], file, offset: dataStart + begin, byteLength }
}

function checkCoverage(tensors: Map<string, TensorInfo>, dataStart: number, fileBytes: number, fail: Fail): void {
  const inOrder = [...tensors.values()].sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength)
  let end = dataStart
  for (const { name, offset, byteLength } of inOrder) {
    if (offset !== end) {
      fail(
        `tensor ${quote(name)} starts at byte ${offset}, ${offset < end ? 'inside another' : 'after a hole'} (${end})`,
      )
    }
    end += byteLength
  }
  if (end !== fileBytes) fail(`${fileBytes - end} bytes at the end belong to no tensor`)
}

/** Keys of the outermost object of valid JSON, duplicates included: JSON.parse keeps the last of them in silence. */
function topLevelKeys(json: string): string[] {
  const keys: string[] = []
  let depth = 0
  for (let i = 0; i < json.length; i++) {
    const char = json[i]
    if (char === '{' || char === '[') depth++
    else if (char === '}' || char === ']') depth--
    else if (char === '"') {
      const start = i
      for (i++; json[i] !== '"'; i++) if (json[i] === '\\') i++
      let next = i + 1
      while (/\s/.test(json[next] ?? '')) next++
      if (depth === 1 && json[next] === ':') keys.push(JSON.parse(json.slice(start, i + 1)) as string)
    }
  }
  return keys
}

function isDtype(dtype: string): dtype is TensorDtype {
  return Object.hasOwn(dtypeBytes, dtype)
}

function isOffset(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function show(value: unknown): string {
  return (JSON.stringify(value) ?? 'missing').slice(0, 80)
}

function quote(name: string): string {
  return JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}...` : name)
}
