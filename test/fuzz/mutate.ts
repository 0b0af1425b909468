/* Damage of one file. What is done, and where, is decided by the draws alone. */
import { mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { Draws } from '../draws.ts'
import { elements } from '../../src/util/shape.ts'

/** Damages a file; returns in words how. */
export async function mutate(path: string, draws: Draws): Promise<string> {
  const structured = path.endsWith('.safetensors')
    ? ['header', 'header', 'header', 'length', 'body', 'body']
    : path.endsWith('.json')
      ? ['json', 'json', 'json', 'json', 'json', 'json']
      : path.endsWith('.jsonl')
        ? ['lines', 'lines', 'lines', 'lines']
        : []
  const kind = draws.pick(['bytes', 'bytes', 'bytes', 'file', ...structured])
  if (kind === 'file') return await replaceFile(path, draws)
  const before = await readFile(path)
  const { after, how } = mutations[kind]!(before, draws)
  await writeFile(path, after)
  return how
}

interface Mutated {
  readonly after: Buffer
  readonly how: string
}

const mutations: Readonly<Record<string, (bytes: Buffer, draws: Draws) => Mutated>> = {
  bytes: mutateBytes,
  json: (bytes, draws) => {
    const { text, how } = mutateJson(bytes.toString(), draws)
    return { after: Buffer.from(text), how }
  },
  lines: mutateLines,
  header: mutateHeader,
  length: mutateLength,
  body: mutateBody,
}

function mutateBytes(bytes: Buffer, draws: Draws): Mutated {
  const { length } = bytes
  const at = draws.below(length)
  const count = Math.min(length - at, draws.pick([1, 2, 4, 16, 100, 1000]))
  const [head, tail] = [bytes.subarray(0, at), bytes.subarray(at + count)]
  switch (draws.pick(['flip', 'flip', 'delete', 'insert', 'cut', 'repeat', 'fill'])) {
    case 'flip': {
      const after = Buffer.from(bytes)
      const flips = draws.between(1, 8)
      for (let i = 0; i < flips; i++) after[draws.below(length)]! ^= 1 << draws.below(8)
      return { after, how: `${flips} bits flipped` }
    }
    case 'delete':
      return { after: Buffer.concat([head, tail]), how: `${count} bytes deleted at ${at}` }
    case 'insert': {
      const inserted = Buffer.from(Array.from({ length: count }, () => draws.below(256)))
      return { after: Buffer.concat([head, inserted, bytes.subarray(at)]), how: `${count} bytes inserted at ${at}` }
    }
    case 'cut':
      return { after: head, how: `cut at ${at} of ${length}` }
    case 'repeat':
      return {
        after: Buffer.concat([bytes.subarray(0, at + count), bytes.subarray(at)]),
        how: `${count} bytes at ${at} repeated`,
      }
    default: {
      const value = draws.pick([0, 0xff, 0x0a, 0x20])
      return {
        after: Buffer.concat([head, Buffer.alloc(count, value), tail]),
        how: `${count} bytes at ${at} set to ${value}`,
      }
    }
  }
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

/** Texts that `JSON.stringify` would not write: put in where the placeholder stands. */
const placeholder = '@raw@'
const deep = 20_000
const rawValues = [
  'NaN',
  '-Infinity',
  '1e999',
  '-0',
  '1e-400',
  '123456789012345678901234567890',
  `${'['.repeat(deep)}${']'.repeat(deep)}`,
  `${'{"a":'.repeat(deep)}1${'}'.repeat(deep)}`,
  '"\\ud800"',
  '{"__proto__": {"polluted": true}}',
]
const wrongValues: readonly Json[] = [
  null,
  true,
  false,
  0,
  1,
  -1,
  -5,
  3.7,
  1e308,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  1e15,
  1e9,
  1e-30,
  '',
  '12',
  'x',
  '../x',
  '/dev/zero',
  '(a+)+$',
  '<fuzz>',
  '\u0000',
  'x'.repeat(300_000),
  [],
  {},
  [[]],
  [null],
  ['x'],
  { x: 1 },
]
const keys = ['__proto__', 'constructor', 'toString', '', 'x'.repeat(70_000), 'length']

interface Place {
  readonly holder: Json[] | { [key: string]: Json }
  readonly key: string
  readonly path: string
}

function placesOf(value: Json, path = '$'): Place[] {
  if (typeof value !== 'object' || value === null) return []
  const entries = Object.entries(value) as [string, Json][]
  return entries.flatMap(([key, item]) => [
    { holder: value, key, path: `${path}.${key.slice(0, 40)}` },
    ...placesOf(item, `${path}.${key.slice(0, 40)}`),
  ])
}

/** As a level is drawn first, a vocabulary of thousands does not hide the other keys. */
function pickPlace(root: Json, draws: Draws): Place | undefined {
  let places = placesOf(root).filter(({ path }) => path.split('.').length === 2)
  let found: Place | undefined
  while (places.length > 0) {
    found = draws.pick(places)
    const inner = (found.holder as Record<string, Json>)[found.key]
    if (typeof inner !== 'object' || inner === null || draws.chance(0.3)) return found
    const prefix = found.path
    places = Object.keys(inner).map((key) => ({ holder: inner, key, path: `${prefix}.${key.slice(0, 40)}` }))
  }
  return found
}

/** Also a key that is otherwise the prototype; of a list, one more entry. */
function setOwn(holder: Record<string, Json>, name: string, value: Json): void {
  if (Array.isArray(holder)) holder.push(value)
  else Object.defineProperty(holder, name, { value, enumerable: true, configurable: true })
}

/** Changes a value, a key or a list of a JSON text; a text that is none, or has nothing in it, is changed as text. */
export function mutateJson(text: string, draws: Draws): { readonly text: string; readonly how: string } {
  let root: Json
  try {
    root = JSON.parse(text) as Json
  } catch {
    return { text: `${text}}`, how: 'a brace added' }
  }
  const place = pickPlace(root, draws)
  if (place === undefined) return { text: draws.pick(rawValues), how: 'another value' }
  const { key, path } = place
  const holder = place.holder as Record<string, Json>
  const value = holder[key]!
  let raw = 'null'
  let how: string
  switch (draws.pick(['wrong', 'wrong', 'wrong', 'raw', 'remove', 'rename', 'add', 'list', 'swap', 'double', 'near'])) {
    case 'wrong': {
      const wrong = draws.pick(wrongValues)
      holder[key] = wrong
      how = `${path} set to ${JSON.stringify(wrong).slice(0, 40)}`
      break
    }
    case 'raw':
      raw = draws.pick(rawValues)
      holder[key] = placeholder
      how = `${path} set to ${raw.slice(0, 40)}`
      break
    case 'remove':
      if (Array.isArray(holder)) holder.splice(Number(key), 1)
      else delete holder[key]
      how = `${path} removed`
      break
    case 'rename': {
      const name = draws.pick([...keys, `${key}x`, key.toUpperCase()])
      delete holder[key]
      setOwn(holder, name, value)
      how = `${path} renamed to ${name.slice(0, 40)}`
      break
    }
    case 'add': {
      const name = draws.pick(keys)
      setOwn(holder, name, draws.pick(wrongValues))
      how = `${name.slice(0, 40)} added beside ${path}`
      break
    }
    case 'list':
      if (Array.isArray(value)) {
        if (draws.chance(0.5)) value.push(...(value.length > 0 ? [draws.pick(value)] : [draws.pick(wrongValues)]))
        else value.pop()
        how = `${path} with ${value.length} entries`
      } else {
        holder[key] = [value]
        how = `${path} in a list`
      }
      break
    case 'swap': {
      const other = draws.pick(Object.keys(holder))
      holder[key] = holder[other]!
      holder[other] = value
      how = `${path} swapped with ${other.slice(0, 40)}`
      break
    }
    case 'double':
      raw = `${JSON.stringify(draws.pick(wrongValues))}, ${JSON.stringify(key)}: ${JSON.stringify(value)}`
      if (draws.chance(0.5))
        raw = `${JSON.stringify(value)}, ${JSON.stringify(key)}: ${JSON.stringify(draws.pick(wrongValues))}`
      if (Array.isArray(holder)) raw = 'null, null'
      holder[key] = placeholder
      how = `${path} twice`
      break
    default:
      holder[key] =
        typeof value === 'number'
          ? draws.pick([value + 1, value - 1, -value, value * 2, value + 0.5])
          : JSON.stringify(value)
      how = `${path} changed to ${JSON.stringify(holder[key]).slice(0, 40)}`
  }
  return { text: JSON.stringify(root).replace(JSON.stringify(placeholder), () => raw), how }
}

function mutateLines(bytes: Buffer, draws: Draws): Mutated {
  const lines = bytes.toString().trimEnd().split('\n')
  const at = draws.below(lines.length)
  let how: string
  if (draws.chance(0.7)) {
    const mutated = mutateJson(lines[at]!, draws)
    lines[at] = mutated.text
    how = mutated.how
  } else {
    const line = draws.pick(['', '[]', 'null', '[', '"x"', '{}', '\uFEFF{}', ' ', '{"prompt": "", "completion": ""}'])
    lines.splice(at, draws.below(2), line)
    how = `is ${JSON.stringify(line)}`
  }
  return { after: Buffer.from(`${lines.join('\n')}\n`), how: `line ${at + 1}: ${how}` }
}

interface Tensor {
  dtype: string
  shape: number[]
  data_offsets: [number, number]
}

function split(bytes: Buffer): { readonly header: string; readonly body: Buffer } {
  const end = 8 + Number(bytes.readBigUInt64LE())
  return { header: bytes.toString('utf8', 8, end), body: bytes.subarray(end) }
}

function join8(header: string, body: Buffer, length = BigInt(Buffer.byteLength(header))): Buffer {
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(BigInt.asUintN(64, length))
  return Buffer.concat([prefix, Buffer.from(header), body])
}

function mutateHeader(bytes: Buffer, draws: Draws): Mutated {
  const { header, body } = split(bytes)
  if (draws.chance(0.5)) {
    const { text, how } = mutateJson(header, draws)
    return { after: join8(text, body), how: `header: ${how}` }
  }
  const tensors = JSON.parse(header) as Record<string, Tensor>
  const names = Object.keys(tensors).filter((name) => name !== '__metadata__')
  const [one, other] = [draws.pick(names), draws.pick(names)]
  const [a, b] = [tensors[one]!, tensors[other]!]
  let how: string
  switch (draws.pick(['offsets', 'shape', 'dtype', 'names', 'overlap', 'gap', 'copy', 'metadata'])) {
    case 'offsets':
      ;[a.data_offsets, b.data_offsets] = [b.data_offsets, a.data_offsets]
      how = `offsets of ${one} and ${other} swapped`
      break
    case 'shape':
      a.shape = draws.pick([[...a.shape].reverse(), [...a.shape, 1], [elements(a.shape)], [0], []])
      how = `${one} has shape [${a.shape.join(', ')}]`
      break
    case 'dtype':
      a.dtype = draws.pick(['F32', 'F16', 'BF16', 'I32', 'U8', 'F64', 'F8_E4M3', 'BOOL', 'I8'])
      how = `${one} is ${a.dtype}`
      break
    case 'names':
      tensors[one] = b
      tensors[other] = a
      how = `${one} and ${other} swapped`
      break
    case 'overlap':
      a.data_offsets = [...b.data_offsets]
      how = `${one} lies where ${other} does`
      break
    case 'gap':
      a.data_offsets = [a.data_offsets[0] + 4, a.data_offsets[1] + 4]
      how = `${one} lies 4 bytes further on`
      break
    case 'copy':
      tensors[`${one}.extra`] = { ...a }
      how = `${one} twice`
      break
    default:
      Object.assign(tensors, { __metadata__: draws.pick([{ format: 'np' }, { format: 1 }, [], null, { x: '<fuzz>' }]) })
      how = '__metadata__ changed'
  }
  return { after: join8(JSON.stringify(tensors), body), how: `header: ${how}` }
}

function mutateLength(bytes: Buffer, draws: Draws): Mutated {
  const { header, body } = split(bytes)
  const real = BigInt(Buffer.byteLength(header))
  const length = draws.pick([0n, 1n, 2n, -1n, real - 1n, real + 1n, real * 2n, 2n ** 31n, 2n ** 32n + real, 2n ** 62n])
  return { after: join8(header, body, length), how: `header length ${length} instead of ${real}` }
}

/** A value of a weight: special numbers, where flipped bits seldom lead. */
function mutateBody(bytes: Buffer, draws: Draws): Mutated {
  const start = bytes.length - split(bytes).body.length
  const after = Buffer.from(bytes)
  const patterns = ['0000c07f', '0000807f', '000080ff', 'ffff7f7f', '01000000', 'c07fc07f', '00fc00fc', 'ffffffff']
  const pattern = Buffer.from(draws.pick(patterns), 'hex')
  const places = draws.pick([1, 3, 50])
  for (let i = 0; i < places; i++) after.set(pattern, start + 4 * draws.below(Math.floor((bytes.length - start) / 4)))
  return { after, how: `body: 0x${pattern.toString('hex')} at ${places} places` }
}

const pointer = `version https://git-lfs.github.com/spec/v1
oid sha256:${'0'.repeat(64)}
size 4899896
`

async function replaceFile(path: string, draws: Draws): Promise<string> {
  const kind = draws.pick(['missing', 'empty', 'pointer', 'folder', 'loop', 'endless', 'nowhere', 'other', 'html'])
  await rm(path)
  switch (kind) {
    case 'missing':
      break
    case 'empty':
      await writeFile(path, '')
      break
    case 'pointer':
      await writeFile(path, pointer)
      break
    case 'folder':
      await mkdir(path)
      break
    case 'loop':
      await symlink(basename(path), path)
      break
    case 'endless':
      await symlink('/dev/zero', path)
      break
    case 'nowhere':
      await symlink('not-there', path)
      break
    case 'html':
      await writeFile(path, '<!doctype html><title>404</title>')
      break
    default: {
      const others = (await readdir(dirname(path), { withFileTypes: true })).filter((entry) => entry.isFile())
      if (others.length === 0) break
      const { name } = draws.pick(others)
      await writeFile(path, await readFile(join(dirname(path), name)))
      return `replaced by ${name}`
    }
  }
  return `replaced: ${kind}`
}
