import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { writeCheckpoint } from './checkpoint.ts'
import { openCheckpoint, type TensorSource, writeSafetensors } from './safetensors.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
})
afterEach(() => rm(folder, { recursive: true }))

const tensor = (name: string, values: readonly number[]): TensorSource => ({
  name,
  dtype: 'F32',
  shape: [values.length],
  data: () => new Uint8Array(Float32Array.from(values).buffer),
})

/** Tensors a, b, c, ... of so many elements, all of this value. */
const tensors = (sizes: readonly number[], value = 1): TensorSource[] =>
  sizes.map((size, i) => tensor('abcdefgh'[i]!, new Array<number>(size).fill(value)))

const listing = async (): Promise<string[]> => (await readdir(folder)).sort()

/** Where each tensor lies and what it holds, through the reader. */
async function contents(): Promise<Record<string, [file: string, values: number[]]>> {
  const reader = await openCheckpoint(folder)
  const found: Record<string, [string, number[]]> = {}
  for (const { name, file } of reader.tensors.values()) {
    const values = new Float32Array((await reader.read(name)).buffer)
    found[name] = [file.slice(folder.length + 1), [...values]]
  }
  await reader.close()
  return found
}

const shard = (i: number, n: number): string => `model-0000${i}-of-0000${n}.safetensors`
const index = 'model.safetensors.index.json'

describe('writeCheckpoint', () => {
  it('writes one file where that is enough', async () => {
    const written = await writeCheckpoint(folder, tensors([2, 1]), { maxShardBytes: 12 })
    expect(written).toEqual({ bytes: 12, tensors: 2 })
    expect(await listing()).toEqual(['model.safetensors'])
    const reader = await openCheckpoint(folder)
    expect(reader.metadata).toEqual({ format: 'pt' })
    await reader.close()
  })

  it('fills shards up to the limit, in order; a larger tensor has its own', async () => {
    const order: string[] = []
    const watched = tensors([2, 1, 1, 9, 1, 3]).map((source) => ({
      ...source,
      data: () => {
        order.push(source.name)
        return (source.data as () => Uint8Array)()
      },
    }))
    const written = await writeCheckpoint(join(folder), watched, { maxShardBytes: 12 })
    expect(written).toEqual({ bytes: 68, tensors: 6 })
    expect(order).toEqual(['a', 'b', 'c', 'd', 'e', 'f'])
    const places = Object.fromEntries(Object.entries(await contents()).map(([name, [file]]) => [name, file]))
    expect(places).toEqual({
      a: shard(1, 5),
      b: shard(1, 5),
      c: shard(2, 5),
      d: shard(3, 5),
      e: shard(4, 5),
      f: shard(5, 5),
    })
    expect(await listing()).toEqual([...[1, 2, 3, 4, 5].map((i) => shard(i, 5)), index].sort())
  })

  it('prints the index as transformers does', async () => {
    await writeCheckpoint(folder, tensors([2, 3]).reverse(), { maxShardBytes: 12 })
    expect(await readFile(join(folder, index), 'utf8')).toBe(
      `{
  "metadata": {
    "total_parameters": 5,
    "total_size": 20
  },
  "weight_map": {
    "a": "${shard(2, 2)}",
    "b": "${shard(1, 2)}"
  }
}
`,
    )
    await writeCheckpoint(folder, tensors([2, 3]), { maxShardBytes: 12, parameters: 40 })
    expect(await readFile(join(folder, index), 'utf8')).toContain('"total_parameters": 40')
  })

  const limits = { 'one file': 100, 'two shards': 12, 'three shards': 8 }
  const names = Object.keys(limits) as (keyof typeof limits)[]
  it.each(names.flatMap((from) => names.map((to) => [from, to] as const)))(
    'replaces %s by %s, and what is in the way with it',
    async (from, to) => {
      await writeFile(join(folder, 'config.json'), '{}')
      await writeCheckpoint(folder, tensors([2, 1, 2], 1), { maxShardBytes: limits[from] })
      await writeCheckpoint(folder, tensors([2, 1, 2], 2), { maxShardBytes: limits[to] })
      const expected = {
        'one file': ['model.safetensors'],
        'two shards': [shard(1, 2), shard(2, 2), index],
        'three shards': [shard(1, 3), shard(2, 3), shard(3, 3), index],
      }
      expect(await listing()).toEqual(['config.json', ...expected[to]].sort())
      expect(Object.values(await contents()).flatMap(([, values]) => values)).toEqual([2, 2, 2, 2, 2])
    },
  )

  it.each(names)('leaves %s as it was when a tensor fails', async (from) => {
    await writeCheckpoint(folder, tensors([2, 1, 2], 1), { maxShardBytes: limits[from] })
    const [before, held] = [await listing(), await contents()]
    const failing = { ...tensor('c', [1, 2]), data: () => Promise.reject(new Error('no data')) }
    const writing = writeCheckpoint(folder, [...tensors([2, 1], 2), failing], { maxShardBytes: 12 })
    await expect(writing).rejects.toThrow('no data')
    expect([await listing(), await contents()]).toEqual([before, held])
  })

  it('has no index over shards of which only some are new', async () => {
    await writeCheckpoint(folder, tensors([3, 3], 1), { maxShardBytes: 12 })
    await rm(join(folder, shard(2, 2)))
    await mkdir(join(folder, shard(2, 2)))
    const writing = writeCheckpoint(folder, tensors([3, 3], 2), { maxShardBytes: 12 })
    await expect(writing).rejects.toMatchObject({ code: 'io' })
    expect(await listing()).toEqual([shard(1, 2), shard(2, 2)])
  })

  it('removes what a killed run left, and makes the folder', async () => {
    const inner = join(folder, 'x', 'y')
    await mkdir(join(inner, '.checkpoint.tmp'), { recursive: true })
    await writeSafetensors(join(inner, '.checkpoint.tmp', 'model.safetensors'), tensors([1]))
    await writeCheckpoint(inner, tensors([1]), { maxShardBytes: 12 })
    expect(await readdir(inner)).toEqual(['model.safetensors'])
    await writeCheckpoint(join(folder, 'new'), tensors([1]), { maxShardBytes: 12 })
    expect(await readdir(join(folder, 'new'))).toEqual(['model.safetensors'])
  })

  it('refuses before anything is made where the disk has no room', async () => {
    let called = 0
    const huge: TensorSource = { name: 'a', dtype: 'F32', shape: [2 ** 48], data: () => new Uint8Array(++called) }
    await expect(writeCheckpoint(folder, [huge], { maxShardBytes: 5e9 })).rejects.toMatchObject({
      code: 'io',
      message: expect.stringMatching(/1125899.* GB are needed \(1125899907891200 bytes\), .* are free \(\d+ bytes\)/),
      hint: expect.stringContaining('another disk'),
    })
    expect([called, await listing()]).toEqual([0, []])
  })

  it('refuses a name twice, also in two shards', async () => {
    const twice = [...tensors([3, 3]), tensor('a', [1])]
    await expect(writeCheckpoint(folder, twice, { maxShardBytes: 12 })).rejects.toThrow('tensor "a"')
    expect(await listing()).toEqual([])
  })

  it('says where it cannot write', async () => {
    const file = join(folder, 'file')
    await writeFile(file, '')
    await expect(writeCheckpoint(file, tensors([1]), { maxShardBytes: 12 })).rejects.toMatchObject({
      code: 'io',
      message: expect.stringContaining(`cannot write ${file}: ENOTDIR`),
    })
  })
})
