import { type ErrorCode, LowrankError } from '../util/errors.ts'
import { brief } from '../util/format.ts'
import { isJsonObject, parseJson, type JsonObject } from './json.ts'

/**
 * Bits an element takes, of every dtype of the safetensors format. Most are only passed over: a file may hold tensors that nobody reads,
 * and its header is checked as a whole.
 */
const dtypeBits = {
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E4M3: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2: 8,
  F8_E5M2FNUZ: 8,
  F8_E8M0: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  I64: 64,
  U64: 64,
  F64: 64,
  C64: 64,
} as const

export type TensorDtype = keyof typeof dtypeBits

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

/** Bytes of a tensor; undefined where a dimension is not a count, or the product is no safe integer or no whole number of bytes. */
export function tensorBytes(dtype: TensorDtype, shape: readonly unknown[]): number | undefined {
  let bytes = dtypeBits[dtype] / 8
  let safe = true
  for (const dimension of shape) {
    if (typeof dimension !== 'number' || !Number.isSafeInteger(dimension) || dimension < 0) return undefined
    bytes *= dimension
    safe &&= bytes <= Number.MAX_SAFE_INTEGER
  }
  return safe && Number.isInteger(bytes) ? bytes : undefined
}

/**
 * Parses and checks a safetensors header (the JSON after the 8 length bytes) against the rules of the format: known
 * dtypes, byte ranges that equal shape times element size, lie inside the file and cover it without holes or overlaps,
 * unique names. `fileBytes` is the size of the whole file.
 */
export function parseHeader(json: string, file: string, fileBytes: number, code: ErrorCode): Header {
  const fail = (what: string, cause?: unknown, hint = damagedHint): never => {
    throw new LowrankError(code, `${file}: ${what}`, { cause, hint })
  }
  const dataStart = 8 + Buffer.byteLength(json)
  const root = parseObject(json, fail)
  const tensors = new Map<string, TensorInfo>()
  let metadata: Record<string, string> = {}
  for (const [name, entry] of Object.entries(root)) {
    if (!isJsonObject(entry)) return fail(`header entry ${brief(name)} is not an object`)
    if (name === '__metadata__') {
      for (const [key, value] of Object.entries(entry)) {
        if (typeof value !== 'string') return fail(`metadata ${brief(key)} is not a string`)
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
export function elementBits(dtype: TensorDtype): number {
  return dtypeBits[dtype]
}

const damagedHint = 'The file is damaged or was not written by safetensors.'

type Fail = (what: string, cause?: unknown, hint?: string) => never

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
    return fail(`tensor ${brief(twice ?? '')} is listed twice in the header`)
  }
  return root
}

function parseEntry(
  name: string,
  entry: JsonObject,
  { file, dataStart, dataBytes, fail }: { file: string; dataStart: number; dataBytes: number; fail: Fail },
): TensorInfo {
  const { dtype, shape, data_offsets: offsets } = entry
  const tensor = `tensor ${brief(name)}`
  if (typeof dtype !== 'string' || !isDtype(dtype)) return fail(`${tensor}: dtype ${show(dtype)} is not known`)
  if (!Array.isArray(shape) || shape.length > 16) return fail(`${tensor}: shape ${show(shape)} is not a list of sizes`)
  const byteLength = tensorBytes(dtype, shape)
  if (byteLength === undefined) return fail(`${tensor}: shape ${show(shape)} is not possible`)
  if (!Array.isArray(offsets) || offsets.length !== 2)
    return fail(`${tensor}: data_offsets ${show(offsets)} is not a pair`)
  const [begin, end] = offsets as unknown[]
  if (!isOffset(begin) || !isOffset(end) || begin > end) {
    return fail(`${tensor}: data_offsets ${show(offsets)} is not a byte range`)
  }
  if (end > dataBytes) {
    const ends = `${tensor} ends at byte ${dataStart + end}, the file at byte ${dataStart + dataBytes}`
    return fail(`${ends}: it is cut short`, undefined, 'The file is incomplete: download or save it again.')
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
        `tensor ${brief(name)} starts at byte ${offset}, ${offset < end ? 'inside another' : 'after a hole'} (${end})`,
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
  return Object.hasOwn(dtypeBits, dtype)
}

function isOffset(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function show(value: unknown): string {
  return (JSON.stringify(value) ?? 'missing').slice(0, 80)
}
