/*
 * What a call may do with a damaged file: refuse it, by a LowrankError whose code is not `internal`; or succeed, with the result that the
 * file gave before it was damaged, or with another one where the file is still a sound file that says something else, which no reader
 * can know to be damage. `damageSeen` decides the last:
 *
 *   .safetensors   the header is well-formed, and has the same tensors with the same dtypes and shapes: their values differ, or tensors of
 *                  one size were exchanged. Another `__metadata__` alone must not matter.
 *   .json          it is an object; no value is infinite, or of another type than before, but for null, which is an unset value, and for
 *                  the keys of `either`. Of the keys of `notes` none may matter.
 *   .jsonl         UTF-8, and each line that is not blank an object with the texts `prompt` and `completion`.
 *   .yaml          the schema of the options, which the call itself applies.
 *   a checkpoint   never: its files are hashed.
 *   run.json and metrics.jsonl as reports read them: always, since they may be of another version.
 *
 * A number in a result that is not finite is never right.
 */
import { basename } from 'node:path'
import { elements } from '../../src/util/shape.ts'

export type Verdict = 'refused' | 'same' | 'changed' | 'wrong' | 'internal' | 'crash' | 'hang' | 'memory'

/** Those of which there must be none. */
export const failures: readonly Verdict[] = ['wrong', 'internal', 'crash', 'hang', 'memory']

/**
 * Why a reader must have seen that a file is damaged; undefined where it cannot. `after` is undefined where there is no file any more, or
 * something else in its place.
 */
export function damageSeen(path: string, before: Buffer, after: Buffer | undefined): string | undefined {
  const name = basename(path)
  if (/(^|\/)checkpoint-\d+\//.test(path)) return 'files of a checkpoint are hashed'
  if (path.startsWith('runs/')) return undefined
  if (after === undefined) return optional.has(name) ? undefined : 'it is not there'
  if (name.endsWith('.safetensors')) return tensorsSeen(before, after)
  if (name.endsWith('.jsonl')) return linesSeen(after)
  return name.endsWith('.json') ? jsonSeen(before, after) : undefined
}

/** Files that a folder need not have. */
const optional = new Set([
  'tokenizer_config.json',
  'special_tokens_map.json',
  'generation_config.json',
  'run.json',
  'metrics.jsonl',
])

/** The numbers of a result, which must be finite. */
export function isFinite(result: unknown): boolean {
  if (typeof result === 'number') return Number.isFinite(result)
  if (typeof result !== 'object' || result === null) return true
  return Object.values(result).every(isFinite)
}

interface Tensor {
  readonly dtype: string
  readonly shape: readonly number[]
  readonly data_offsets: readonly [number, number]
}

const bits: Readonly<Record<string, number>> = {
  F64: 64,
  I64: 64,
  F32: 32,
  I32: 32,
  F16: 16,
  BF16: 16,
  U8: 8,
  I8: 8,
  BOOL: 8,
}

/** The tensors of a file, sorted by name, and its metadata; undefined where they do not tile what follows the header. */
function readTensors(bytes: Buffer): { tensors: [string, Tensor][]; metadata: unknown; body: Buffer } | undefined {
  try {
    const start = 8 + Number(bytes.readBigUInt64LE())
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(8, start))
    const { __metadata__: metadata, ...rest } = JSON.parse(text) as Record<string, Tensor>
    const body = bytes.subarray(start)
    let end = 0
    const tensors = Object.entries(rest)
    for (const [, { dtype, shape, data_offsets }] of tensors.toSorted(
      ([, a], [, b]) => a.data_offsets[0] - b.data_offsets[0] || a.data_offsets[1] - b.data_offsets[1],
    )) {
      const size = (elements(shape) * bits[dtype]!) / 8
      if (data_offsets.length !== 2 || data_offsets[0] !== end || data_offsets[1] !== end + size) return undefined
      end += size
    }
    return end === body.length ? { tensors: tensors.sort(([a], [b]) => (a < b ? -1 : 1)), metadata, body } : undefined
  } catch {
    return undefined
  }
}

function tensorsSeen(before: Buffer, after: Buffer): string | undefined {
  const [old, now] = [readTensors(before), readTensors(after)]
  if (now === undefined) return 'it is not well-formed'
  const kinds = (file: typeof now | undefined, offsets: boolean): string =>
    JSON.stringify(
      file?.tensors.map(([name, { dtype, shape, data_offsets }]) => [
        name,
        // Numbers of 16 bits may be of either kind.
        offsets ? dtype : dtype.replace('BF16', 'F16'),
        shape,
        ...(offsets ? data_offsets : []),
      ]),
    )
  if (kinds(old, false) !== kinds(now, false)) return 'it has other tensors'
  const onlyMetadata = kinds(old, true) === kinds(now, true) && old?.body.equals(now.body) === true
  return onlyMetadata ? 'only its metadata differs' : undefined
}

function linesSeen(bytes: Buffer): string | undefined {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    for (const [index, line] of text.split('\n').entries()) {
      if (line.trim() === '') continue
      const { prompt, completion } = JSON.parse(line) as Record<string, unknown>
      if (typeof prompt !== 'string' || typeof completion !== 'string') return `line ${index + 1} is no example`
    }
    return undefined
  } catch (error) {
    return String(error)
  }
}

/** What is reported of the file and does not change what it means. */
const notes = new Set(['architectures', 'transformers_version', 'base_model_name_or_path', 'metadata', 'version'])

/** Keys whose values have several types, by their own name; and numbers that need not be whole. */
const either =
  /^(target_modules|exclude_modules|modules_to_save|layers_to_transform|layers_pattern|eos_token(_id)?|pad_token|bos_token|init_lora_weights|merges|\d+)$/
const fractional =
  /^(rope_theta|rms_norm_eps|initializer_range|lora_alpha|lora_dropout|attention_dropout|.*factor|.*\.mlp\..*|r)$/

function jsonSeen(before: Buffer, after: Buffer): string | undefined {
  let root: unknown
  try {
    root = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(after))
  } catch (error) {
    return String(error)
  }
  if (typeOf(root, '') !== 'object') return 'it is no object'
  const old = JSON.parse(before.toString()) as Record<string, unknown>
  if (!isFinite(root)) return 'a number is infinite'
  const now = root as Record<string, unknown>
  const changed = [...new Set([...Object.keys(old), ...Object.keys(now)])].filter(
    (key) => JSON.stringify(old[key]) !== JSON.stringify(now[key]),
  )
  if (changed.every((key) => notes.has(key))) return `only notes differ: ${changed.join(', ')}`
  return typesSeen(old, now, '$')
}

function typesSeen(before: unknown, after: unknown, path: string): string | undefined {
  const key = path.slice(path.lastIndexOf('.') + 1)
  if (before === undefined || after === undefined || before === null || after === null) return undefined
  const [old, now] = [typeOf(before, key), typeOf(after, key)]
  if (old !== now) return either.test(key) ? undefined : `${path} was ${old}, and is ${now}`
  if (typeof before !== 'object' || typeof after !== 'object') return undefined
  for (const name of Object.keys(before)) {
    if (!Object.hasOwn(after, name)) continue
    const seen = typesSeen(
      (before as Record<string, unknown>)[name],
      (after as Record<string, unknown>)[name],
      `${path}.${name}`,
    )
    if (seen !== undefined) return seen
  }
  return undefined
}

function typeOf(value: unknown, key: string): string {
  if (value === null || Array.isArray(value)) return value === null ? 'null' : 'list'
  return typeof value === 'number' && !Number.isInteger(value) && !fractional.test(key) ? 'fraction' : typeof value
}
