import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { entry, start, tensorEntry, text, u32, u64, valueTypes } from './values.ts'
import { gguf } from './writer.fixture.ts'
import { GgufFile } from './file.ts'

let folder: string
let path: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
  path = join(folder, 'model.gguf')
})
afterEach(() => rm(folder, { recursive: true }))

async function opened(bytes: Uint8Array): Promise<GgufFile> {
  await writeFile(path, bytes)
  return GgufFile.open(path)
}

const refused = (bytes: Uint8Array): Promise<unknown> =>
  opened(bytes).then(
    () => 'nothing was refused',
    (error: unknown) => error,
  )

const bytesOf = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 7) & 255)

test.each([2, 3])('version %i: values of all types, and tensors', async (version) => {
  const [first, second] = [bytesOf(12), bytesOf(68)]
  const file = await opened(
    gguf({
      version,
      metadata: {
        text: ['text', 'naïve \u{FEFF}x'],
        u8: ['u8', 255],
        i8: ['i8', -1],
        u16: ['u16', 65535],
        i16: ['i16', -2],
        u32: ['u32', 2 ** 32 - 1],
        i32: ['i32', -3],
        u64: ['u64', 2n ** 53n - 1n],
        huge: ['u64', 2n ** 63n],
        i64: ['i64', -4n],
        f32: ['f32', 1e-6],
        f64: ['f64', 0.1],
        yes: ['bool', true],
        scores: ['list', 'f32', [1, 0.5]],
        ids: ['list', 'i64', [1n, -1n]],
        names: ['list', 'text', ['a', '']],
        flags: ['list', 'bool', [true, false]],
        nested: [
          'list',
          'list',
          [
            ['u8', [1]],
            ['text', ['x']],
          ],
        ],
        none: ['list', 'text', []],
      },
      tensors: [
        { name: 'b', type: 'F32', shape: [3], data: first },
        { name: 'a.weight', type: 'Q8_0', shape: [2, 32], data: second },
      ],
    }),
  )
  const { metadata, tensors } = file
  expect(Object.fromEntries(metadata.keys.map((key) => [key, metadata.get(key)]))).toEqual({
    text: 'naïve \u{FEFF}x',
    u8: 255,
    i8: -1,
    u16: 65535,
    i16: -2,
    u32: 2 ** 32 - 1,
    i32: -3,
    u64: 2 ** 53 - 1,
    huge: 2n ** 63n,
    i64: -4,
    // Of an f32 the decimal that it stands for.
    f32: 1e-6,
    f64: 0.1,
    yes: true,
    scores: Float32Array.of(1, 0.5),
    ids: BigInt64Array.of(1n, -1n),
    names: ['a', ''],
    flags: [true, false],
    nested: [Uint8Array.of(1), ['x']],
    none: [],
  })
  expect(
    [...tensors.values()].map(({ name, type, shape, byteLength }) => [name, type.name, shape, byteLength]),
  ).toEqual([
    ['b', 'F32', [3], 12],
    ['a.weight', 'Q8_0', [2, 32], 68],
  ])
  expect(await file.read('b')).toEqual(first)
  const memory = new Uint8Array(100)
  const read = await file.read('a.weight', memory)
  expect([read.buffer, read.byteLength]).toEqual([memory.buffer, 68])
  expect(read).toEqual(second)
  expect(await file.read('a.weight', undefined, { start: 34, end: 68 })).toEqual(second.subarray(34))
  await expect(file.read('c')).rejects.toThrow(`${path} has no tensor "c"`)
  await file.close()
})

test('a header larger than the window through which it is read', async () => {
  const long = 'x'.repeat(3_000_000)
  const tokens = Array.from({ length: 200_000 }, (_, i) => `token ${i}`)
  const file = await opened(gguf({ metadata: { long: ['text', long], tokens: ['list', 'text', tokens] } }))
  expect(file.metadata.text('long')).toBe(long)
  expect(file.metadata.texts('tokens')).toEqual(tokens)
  await file.close()
})

test('a value of another type than is asked for', async () => {
  const file = await opened(
    gguf({ metadata: { n: ['text', 'many'], t: ['u32', 3], l: ['list', 'u32', [1]], c: ['f32', -0.5] } }),
  )
  const { metadata } = file
  expect(() => metadata.number('n')).toThrow(`${path}: metadata n is "many"; a number is expected`)
  expect(() => metadata.text('t')).toThrow('metadata t is "3"; a text is expected')
  expect(() => metadata.texts('l')).toThrow('metadata l is a list of 1; a list of texts is expected')
  expect(() => metadata.count('c')).toThrow('metadata c is "-0.5"; a count is expected')
  expect(() => metadata.needed('x', metadata.count('x'))).toThrow(`${path}: the metadata has no x`)
  await file.close()
})

/** A file with one metadata entry of any bytes, or one tensor. */
const withEntry = (...parts: Buffer[]): Buffer => Buffer.concat([start(0, 1), ...parts, Buffer.alloc(64)])
const withTensors = (...parts: Buffer[]): Buffer => Buffer.concat([start(parts.length, 0), ...parts, Buffer.alloc(512)])
const list = (element: number, count: number | bigint, ...rest: Buffer[]): Buffer =>
  Buffer.concat([text('key'), u32(valueTypes.list), u32(element), u64(count), ...rest])
const nested = (depth: number): Buffer =>
  Buffer.concat([
    text('key'),
    u32(9),
    ...Array.from({ length: depth }, () => Buffer.concat([u32(9), u64(1)])),
    u32(0),
    u64(0),
  ])

const hostile: Readonly<Record<string, readonly [bytes: Buffer, message: string]>> = {
  'nothing at all': [Buffer.alloc(0), 'it ends within its header, at byte 0'],
  'another format': [Buffer.from('PK\u0003\u0004 and more of it'), 'it does not start with "GGUF"'],
  'version 1': [start(0, 0, 1), 'version 1 of the format is not supported'],
  'big-endian': [start(0, 0, 0x03000000), 'big-endian byte order, which is not supported'],
  'more tensors than fit': [
    start(2n ** 40n, 0),
    'the number of tensors is 1099511627776, more than the file has room for',
  ],
  'more entries than fit': [start(0, 2n ** 63n), 'the number of metadata entries is 9223372036854775808'],
  'a long key': [withEntry(u64(70000), Buffer.alloc(70000)), 'has 70000 bytes, at most 65535 are possible'],
  'a text beyond the end': [withEntry(text('key'), u32(8), u64(1e6)), 'the length of metadata "key" is 1000000'],
  'a text that is none': [
    withEntry(text('key'), u32(8), u64(1), Buffer.from([255])),
    'metadata "key" is not valid UTF-8',
  ],
  'an unknown type': [withEntry(text('key'), u32(77)), 'metadata "key" is of type 77, which is not known'],
  'a list of an unknown type': [withEntry(list(77, 1)), 'metadata "key" is of type 77, which is not known'],
  'a flag that is neither': [withEntry(text('key'), u32(7), Buffer.from([2])), 'metadata "key" is 2; true (1)'],
  'a list beyond the end': [withEntry(list(4, 1e9)), 'the length of metadata "key" is 1000000000, more than'],
  'a list of texts beyond the end': [withEntry(list(8, 1e6)), 'the length of metadata "key" is 1000000, more than'],
  'lists in lists': [withEntry(nested(8)), 'is a list in a list, more than 4 deep'],
  'a key twice': [
    Buffer.concat([start(0, 2), entry('k', ['u8', 1]), entry('k', ['u8', 1])]),
    'metadata "k" is there twice',
  ],
  'an alignment of nothing': [withEntry(entry('general.alignment', ['u32', 0])), 'metadata general.alignment is 0'],
  'an alignment that is none': [withEntry(entry('general.alignment', ['u32', 48])), 'general.alignment is 48; a power'],
  'a tensor twice': [
    withTensors(tensorEntry('t', [8], 0, 0), tensorEntry('t', [8], 0, 64)),
    'tensor "t" is there twice',
  ],
  'tensors over each other': [
    withTensors(tensorEntry('s', [16], 0, 0), tensorEntry('t', [8], 0, 32)),
    'the tensors "s" and "t" lie over each other',
  ],
  'a tensor beyond the end': [withTensors(tensorEntry('t', [1000], 0, 0)), 'tensor "t" ends at byte'],
  'a tensor out of step': [
    withTensors(tensorEntry('t', [8], 0, 4)),
    'tensor "t" starts at 4, which is not a multiple of 32',
  ],
  'a tensor of another type': [withTensors(tensorEntry('t', [8], 5, 0)), 'tensor "t" is of type 5, which is not known'],
  'rows that are no blocks': [
    withTensors(tensorEntry('t', [40, 2], 2, 0)),
    'rows of 40 elements, which is not a multiple of the 32',
  ],
  'five dimensions': [withTensors(tensorEntry('t', [1, 1, 1, 1, 1], 0, 0)), 'tensor "t" has 5 dimensions'],
  'no dimensions': [withTensors(tensorEntry('t', [], 0, 0)), 'tensor "t" has 0 dimensions'],
  'an empty tensor': [withTensors(tensorEntry('t', [0], 0, 0)), 'tensor "t" is empty'],
  'a size that is none': [withTensors(tensorEntry('t', [2n ** 31n, 2n ** 31n], 0, 0)), 'which is not possible'],
  'a dimension that is none': [
    withTensors(tensorEntry('t', [2n ** 60n], 0, 0)),
    'a dimension of tensor "t" is 1152921504606846976',
  ],
  'an offset that is none': [
    withTensors(tensorEntry('t', [8], 0, Number.MAX_SAFE_INTEGER - 31)),
    'which is not possible',
  ],
}

describe.each(Object.entries(hostile))('%s', (_, [bytes, message]) => {
  test('is refused by name', async () => {
    const error = await refused(bytes)
    expect(error).toMatchObject({ code: 'model', message: expect.stringContaining(message) as string })
    expect((error as Error).message.startsWith(path)).toBe(true)
  })
})

test('a file that is cut anywhere is refused', async () => {
  const data = bytesOf(68)
  const whole = gguf({
    metadata: { name: ['text', 'x'], list: ['list', 'i32', [1, 2, 3]] },
    tensors: [{ name: 'a', type: 'Q8_0', shape: [2, 32], data }],
  })
  const needed = whole.byteLength - (Math.ceil(data.byteLength / 32) * 32 - data.byteLength)
  for (let length = 0; length < needed; length++) {
    expect(await refused(whole.subarray(0, length)), String(length)).toMatchObject({ code: 'model' })
  }
  await (await opened(whole.subarray(0, needed))).close()
})
