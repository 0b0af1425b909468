import { mkdir, mkdtemp, readdir, readFile, readlink, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { readJsonObject } from './json.ts'
import { openCheckpoint, openSafetensors, type TensorSource, writeSafetensors } from './safetensors.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
})
afterEach(() => rm(folder, { recursive: true }))

const tensor = (name: string, values: number[], shape = [values.length]): TensorSource => ({
  name,
  dtype: 'F32',
  shape,
  data: new Uint8Array(Float32Array.from(values).buffer),
})

/** A file with this header and `dataBytes` zeros after it. */
async function fileWith(header: unknown, dataBytes: number, announced?: number): Promise<string> {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(announced ?? json.length))
  const path = join(folder, 'x.safetensors')
  await writeFile(path, Buffer.concat([length, json, Buffer.alloc(dataBytes)]))
  return path
}

describe('writeSafetensors', () => {
  it('writes what openSafetensors reads', async () => {
    const path = join(folder, 'a.safetensors')
    const half: TensorSource = { name: 'a', dtype: 'F16', shape: [3], data: new Uint8Array([1, 2, 3, 4, 5, 6]) }
    const order: string[] = []
    const late = (source: TensorSource): TensorSource => ({
      ...source,
      data: async () => {
        order.push(source.name)
        return source.data as Uint8Array
      },
    })
    const sources = [half, late(tensor('z', [1, 2, 3, 4], [2, 2])), late(tensor('b', [])), late(tensor('c', [5], []))]
    await writeSafetensors(path, sources, { format: 'pt' })
    expect(order).toEqual(['z', 'b', 'c'])
    const reader = await openSafetensors(path)
    expect(reader.metadata).toEqual({ format: 'pt' })
    expect([...reader.tensors.keys()]).toEqual(['b', 'c', 'z', 'a'])
    expect(reader.tensors.get('z')).toMatchObject({ dtype: 'F32', shape: [2, 2], file: path, byteLength: 16 })
    expect(reader.tensors.get('z')!.offset % 4).toBe(0)
    const z = await reader.read('z')
    expect([...new Float32Array(z.buffer)]).toEqual([1, 2, 3, 4])
    expect([...(await reader.read('a'))]).toEqual([1, 2, 3, 4, 5, 6])
    expect((await reader.read('b')).byteLength).toBe(0)
    await expect(reader.read('q')).rejects.toThrow(`tensor "q" is not in ${path}`)
    await reader.close()
  })

  it('writes the bytes of the reference implementation', async () => {
    const path = join(folder, 'a.safetensors')
    await writeSafetensors(path, [tensor('b', [1]), tensor('a', [2, 3])], { format: 'pt' })
    const header =
      '{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},' +
      '"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}'
    const bytes = await readFile(path)
    const padded = Math.ceil(header.length / 8) * 8
    expect(bytes.readBigUInt64LE()).toBe(BigInt(padded))
    expect(bytes.subarray(8, 8 + padded).toString()).toBe(header.padEnd(padded))
    expect([...new Float32Array(bytes.buffer.slice(bytes.byteOffset + 8 + padded))].slice(0, 3)).toEqual([2, 3, 1])
  })

  it('lets all data functions fill the same buffer', async () => {
    const path = join(folder, 'a.safetensors')
    const shared = new Uint8Array(8)
    const sources = ['U8', 'F32', 'I16'].map((dtype, i): TensorSource => {
      const size = dtype === 'F32' ? 4 : dtype === 'I16' ? 2 : 1
      const shape = [8 / size]
      return { name: `t${i}`, dtype: dtype as TensorSource['dtype'], shape, data: () => shared.fill(i + 1) }
    })
    await writeSafetensors(path, sources)
    const reader = await openSafetensors(path)
    expect([...reader.tensors.keys()]).toEqual(['t1', 't2', 't0'])
    for (const i of sources.keys()) expect([...(await reader.read(`t${i}`))]).toEqual(new Array(8).fill(i + 1))
    await reader.close()
  })

  it('leaves nothing behind when a tensor fails', async () => {
    const path = join(folder, 'a.safetensors')
    const bad = { ...tensor('b', [1]), shape: [2] }
    await expect(writeSafetensors(path, [tensor('a', [1]), bad])).rejects.toThrow('8 bytes expected, 4 given')
    await expect(writeSafetensors(path, [tensor('a', [1]), tensor('a', [1])])).rejects.toThrow('name is taken')
    expect(await readdir(folder)).toEqual([])
  })
})

describe('openSafetensors refuses', () => {
  const a = { dtype: 'F32', shape: [2], data_offsets: [0, 8] }
  it.each<[string, unknown, number, RegExp]>([
    ['invalid JSON', '{"a":', 0, /header is not valid JSON/],
    ['a list', [], 0, /header is not a JSON object/],
    ['an entry that is no object', { a: 1 }, 0, /"a" is not an object/],
    ['metadata that is no text', { __metadata__: { a: 1 } }, 0, /metadata "a" is not a string/],
    ['an unknown dtype', { a: { ...a, dtype: 'Q4' } }, 8, /tensor "a": dtype "Q4" is not known/],
    ['an inherited dtype', { a: { ...a, dtype: 'constructor' } }, 8, /dtype "constructor" is not known/],
    ['no shape', { a: { ...a, shape: undefined } }, 8, /shape missing is not a list/],
    ['a negative size', { a: { ...a, shape: [-2] } }, 8, /shape \[-2\] is not possible/],
    ['a broken size', { a: { ...a, shape: [1.5] } }, 8, /shape \[1.5\] is not possible/],
    ['a product past 2^53', { a: { ...a, shape: [2 ** 40, 2 ** 40] } }, 8, /is not possible/],
    ['no range', { a: { ...a, data_offsets: [0] } }, 8, /data_offsets \[0\] is not a pair/],
    ['a range that runs backwards', { a: { ...a, data_offsets: [8, 0] } }, 8, /is not a byte range/],
    ['a range of text', { a: { ...a, data_offsets: ['0', '8'] } }, 8, /is not a byte range/],
    ['a range of another size', { a: { ...a, shape: [1] } }, 8, /\[1\] takes 4 bytes, data_offsets hold 8/],
    ['a truncated file', { a }, 7, /tensor "a" ends at byte \d+, the file at byte \d+: it is cut short/],
    ['bytes left over', { a }, 9, /1 bytes at the end belong to no tensor/],
    ['a hole', { a, b: { ...a, data_offsets: [12, 20] } }, 20, /tensor "b" starts at byte \d+, after a hole/],
    ['an overlap', { a, b: { ...a, data_offsets: [4, 12] } }, 12, /tensor "b" starts at byte \d+, inside another/],
    ['a name twice', `{"a":${JSON.stringify(a)},"\\u0061" : ${JSON.stringify(a)}}`, 8, /tensor "a" is listed twice/],
  ])('%s', async (_, header, dataBytes, message) => {
    const path = await fileWith(header, dataBytes)
    const opening = openSafetensors(path, { code: 'adapter' })
    await expect(opening).rejects.toMatchObject({ code: 'adapter', message: expect.stringMatching(message) })
    await expect(opening).rejects.toThrow(path)
  })

  it('a header longer than the file or than the format allows', async () => {
    await expect(openSafetensors(await fileWith('{}', 0, 100))).rejects.toThrow('header of 100 bytes is announced')
    await expect(openSafetensors(await fileWith('{}', 0, 2 ** 50))).rejects.toThrow('at most 100000000')
    await writeFile(join(folder, 'tiny'), 'abc')
    await expect(openSafetensors(join(folder, 'tiny'))).rejects.toThrow('3 bytes are too few')
  })

  it('a header that is not UTF-8', async () => {
    const path = await fileWith('{"a":1}', 0)
    const bytes = await readFile(path)
    bytes[10] = 0xff
    await writeFile(path, bytes)
    await expect(openSafetensors(path)).rejects.toThrow('not valid UTF-8')
  })
})

it('accepts names that look like braces, quotes and prototypes', async () => {
  const path = join(folder, 'a.safetensors')
  const names = ['__proto__', 'a"b', 'c\\', '{[', 'constructor', 'é\n']
  await writeSafetensors(
    path,
    names.map((name, i) => tensor(name, [i])),
  )
  const reader = await openSafetensors(path)
  expect([...reader.tensors.keys()].sort()).toEqual([...names].sort())
  for (const [i, name] of names.entries()) expect(new Float32Array((await reader.read(name)).buffer)[0]).toBe(i)
  await reader.close()
})

it('notices a file that is cut after it was opened', async () => {
  const path = join(folder, 'a.safetensors')
  await writeSafetensors(path, [tensor('a', [1, 2])])
  const reader = await openSafetensors(path)
  await truncate(path, reader.tensors.get('a')!.offset + 4)
  await expect(reader.read('a')).rejects.toThrow('cut while open')
  await reader.close()
})

it('reads into a given buffer', async () => {
  const path = join(folder, 'a.safetensors')
  await writeSafetensors(path, [tensor('a', [1, 2]), tensor('b', [3])])
  const reader = await openSafetensors(path)
  const buffer = new ArrayBuffer(24)
  const into = new Uint8Array(buffer, 4, 12)
  const found = await reader.read('a', into)
  expect(found.buffer).toBe(buffer)
  expect([found.byteOffset, found.byteLength]).toEqual([4, 8])
  expect([...new Float32Array(buffer)]).toEqual([0, 1, 2, 0, 0, 0])
  await reader.read('b', into)
  expect([...new Float32Array(buffer)]).toEqual([0, 3, 2, 0, 0, 0])
  await expect(reader.read('a', new Uint8Array(7))).rejects.toMatchObject({
    code: 'internal',
    message: 'internal: tensor "a" of 8 bytes is read into a buffer of 7',
  })
  await reader.close()
})

it('reads a part of a tensor', async () => {
  const path = join(folder, 'a.safetensors')
  await writeSafetensors(path, [tensor('a', [1, 2, 3, 4]), tensor('b', [5])])
  const reader = await openSafetensors(path)
  const part = await reader.read('a', undefined, { start: 4, end: 12 })
  expect([...new Float32Array(part.buffer)]).toEqual([2, 3])
  const message = 'internal: bytes 8 to 20 of tensor "a", which has 16'
  await expect(reader.read('a', undefined, { start: 8, end: 20 })).rejects.toMatchObject({ message })
  await reader.close()
})

it.each([
  ['in pieces that fill the same buffer', 4],
  ['too few of them', 3],
  ['too many', 5],
])('writes a tensor %s', async (_, pieces) => {
  const path = join(folder, 'a.safetensors')
  const shared = new Float32Array(1)
  const data = async function* (): AsyncGenerator<Uint8Array> {
    for (let i = 0; i < pieces; i++) {
      shared[0] = i
      yield new Uint8Array(shared.buffer)
    }
  }
  const writing = writeSafetensors(path, [{ ...tensor('a', [1, 2, 3, 4]), data }, tensor('b', [5])])
  if (pieces !== 4) {
    await expect(writing).rejects.toMatchObject({
      message: `internal: cannot write tensor "a" to ${path}: 16 bytes expected, ${4 * pieces} given`,
    })
    expect(await readdir(folder)).toEqual([])
    return
  }
  await writing
  const reader = await openSafetensors(path)
  expect([...new Float32Array((await reader.read('a')).buffer)]).toEqual([0, 1, 2, 3])
  expect([...new Float32Array((await reader.read('b')).buffer)]).toEqual([5])
  await reader.close()
})

it('reads while the thread that asked computes', async () => {
  const path = join(folder, 'a.safetensors')
  await writeSafetensors(path, [tensor('a', [1, 2])])
  const reader = await openSafetensors(path)
  const into = new Uint8Array(8)
  const reading = reader.read('a', into)
  const begun = performance.now()
  while (into.every((byte) => byte === 0) && performance.now() - begun < 5000);
  expect([...new Float32Array(into.buffer)]).toEqual([1, 2])
  await reading
  await reader.close()
})

describe('openCheckpoint', () => {
  const index = (weightMap: unknown): Promise<void> =>
    writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: weightMap }))

  it('opens a single file', async () => {
    await writeSafetensors(join(folder, 'model.safetensors'), [tensor('a', [1])])
    const reader = await openCheckpoint(folder)
    expect([...reader.tensors.keys()]).toEqual(['a'])
    await reader.close()
  })

  it('opens shards as one', async () => {
    await mkdir(join(folder, 'sub'))
    await writeSafetensors(join(folder, '1.safetensors'), [tensor('a', [1]), tensor('unlisted', [9])], { format: 'pt' })
    await writeSafetensors(join(folder, 'sub', '2.safetensors'), [tensor('b', [2])])
    await index({ a: '1.safetensors', b: 'sub/2.safetensors' })
    const reader = await openCheckpoint(folder)
    expect([...reader.tensors.keys()]).toEqual(['a', 'b'])
    expect(reader.metadata).toEqual({ format: 'pt' })
    expect(new Float32Array((await reader.read('b')).buffer)[0]).toBe(2)
    await reader.close()
  })

  it.each<[string, unknown, RegExp]>([
    ['a tensor its shard lacks', { q: '1.safetensors' }, /places tensor "q" in 1.safetensors, which does not have it/],
    ['a missing shard', { a: '3.safetensors' }, /lists .*3.safetensors, which cannot be opened/],
    ['a path out of the folder', { a: 'x/../../1.safetensors' }, /outside the folder/],
    ['an absolute path', { a: '/etc/passwd' }, /outside the folder/],
    ['a shard that is no text', { a: 7 }, /outside the folder/],
    ['no map', undefined, /"weight_map" is not an object/],
  ])('refuses %s', async (_, weightMap, message) => {
    await writeSafetensors(join(folder, '1.safetensors'), [tensor('a', [1])])
    await index(weightMap)
    await expect(openCheckpoint(folder)).rejects.toThrow(message)
  })

  it('refuses pickle files and says what to do', async () => {
    await writeFile(join(folder, 'pytorch_model.bin'), '')
    await expect(openCheckpoint(folder)).rejects.toMatchObject({
      code: 'model',
      message: expect.stringContaining('only pytorch_model.bin'),
      hint: expect.stringContaining('Convert the model to safetensors'),
    })
    await expect(openCheckpoint(join(folder, 'none'))).rejects.toThrow('cannot open the folder')
  })
})

describe('files that git-lfs did not fetch', () => {
  it('are named as what they are, whatever they should hold', async () => {
    const pointer = 'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 538090408\n'
    const path = join(folder, 'model.safetensors')
    await writeFile(path, pointer)
    const refusal = { message: expect.stringContaining(`${path} is a git-lfs pointer`) as string, code: 'model' }
    await expect(openSafetensors(path)).rejects.toMatchObject(refusal)
    await expect(openCheckpoint(folder)).rejects.toMatchObject(refusal)
    await expect(readJsonObject(path, { code: 'model' })).rejects.toMatchObject(refusal)
  })
})

describe('more shards than files may be open', () => {
  it.skipIf(process.platform !== 'linux')('are opened as they are read', async () => {
    const count = 40
    const names = Array.from({ length: count }, (_, i) => `t${i}`)
    await Promise.all(
      names.map((name, i) => writeSafetensors(join(folder, `${name}.safetensors`), [tensor(name, [i])])),
    )
    const weight_map = Object.fromEntries(names.map((name) => [name, `${name}.safetensors`]))
    await writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map }))
    const reader = await openCheckpoint(folder)
    expect(await openFiles()).toBeLessThanOrEqual(16)
    const read = await Promise.all(names.map(async (name) => new Float32Array((await reader.read(name)).buffer)[0]))
    expect(read).toEqual(names.map((_, i) => i))
    await reader.read('t0')
    expect(await openFiles()).toBeLessThanOrEqual(16)
    await reader.close()
    expect(await openFiles()).toBe(0)
  })

  it('are refused once another file has taken the place of one', async () => {
    const first = join(folder, 'first.safetensors')
    await writeSafetensors(first, [tensor('a', [1])])
    const reader = await openSafetensors(first)
    const others = await Promise.all(
      Array.from({ length: 16 }, async (_, i) => {
        const path = join(folder, `other${i}.safetensors`)
        await writeSafetensors(path, [tensor('b', [2])])
        return openSafetensors(path)
      }),
    )
    await writeSafetensors(first, [tensor('a', [3])])
    await expect(reader.read('a')).rejects.toThrow(`${first} was replaced by another file`)
    for (const one of [reader, ...others]) await one.close()
  })

  /** How many files of the folder this process has open. */
  async function openFiles(): Promise<number> {
    const links = await readdir('/proc/self/fd')
    const targets = await Promise.all(links.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')))
    return targets.filter((target) => target.startsWith(folder)).length
  }
})

describe('dtypes of tensors that nobody reads', () => {
  it.each([
    ['F4', [4], 2],
    ['F6_E2M3', [4], 3],
    ['F8_E4M3FNUZ', [3], 3],
    ['F8_E5M2FNUZ', [3], 3],
    ['F8_E8M0', [3], 3],
    ['C64', [2], 16],
  ])('%s is no damage', async (dtype, shape, bytes) => {
    const path = await fileWith({ a: { dtype, shape, data_offsets: [0, bytes] } }, bytes)
    const reader = await openSafetensors(path)
    expect(reader.tensors.get('a')?.byteLength).toBe(bytes)
    await reader.close()
  })

  it('half a byte is', async () => {
    const path = await fileWith({ a: { dtype: 'F4', shape: [3], data_offsets: [0, 2] } }, 2)
    await expect(openSafetensors(path)).rejects.toThrow('shape [3] is not possible')
  })
})
