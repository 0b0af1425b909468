import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect } from 'vitest'
import xxhash from 'xxhash-wasm'
import { LowrankError } from '../../util/errors.ts'
import { placeText, type ReadOptions, readRecords } from './index.ts'

/** What is written to a file. */
export type Content = string | Uint8Array

/** What a file holds, a record or `PLACE: error` each. */
export async function recordsOf(path: string, options?: ReadOptions): Promise<unknown[]> {
  const records: unknown[] = []
  for await (const entry of readRecords(path, options)) {
    records.push('error' in entry ? `${placeText(entry.place)}: ${entry.error}` : entry.value)
  }
  return records
}

/** Why a file is refused, and what to do. */
export async function refusalOf(path: string): Promise<string> {
  const error: unknown = await recordsOf(path).catch((thrown: unknown) => thrown)
  if (!(error instanceof LowrankError)) throw new Error('not refused', { cause: error })
  expect(error.code).toBe('data')
  return `${error.message} | ${error.hint ?? ''}`
}

/** Files in a folder of their own, without whose path records and refusals are told. */
export function readerFolder(): {
  readonly folder: string
  readonly write: (name: string, content: Content) => string
  readonly read: (name: string, content: Content) => Promise<unknown[]>
  readonly refused: (name: string, content: Content) => Promise<unknown>
} {
  const folder = mkdtempSync(join(tmpdir(), 'lowrank-readers-'))
  afterAll(() => rmSync(folder, { recursive: true }))
  const write = (name: string, content: Content): string => {
    const path = join(folder, name)
    writeFileSync(path, content)
    return path
  }
  const local = (text: unknown): unknown => (typeof text === 'string' ? text.replaceAll(`${folder}/`, '') : text)
  return {
    folder,
    write,
    read: async (name, content) => (await recordsOf(write(name, content))).map((one) => local(one)),
    refused: async (name, content) => local(await refusalOf(write(name, content))),
  }
}

type Block = Uint8Array | { readonly repeat: number; readonly times: number }

const hashes = await xxhash()

/** A frame of Zstandard with its size and a checksum. */
export function zstd(content: Content): Buffer {
  const bytes = Buffer.from(content)
  const checksum = Buffer.alloc(4)
  checksum.writeUInt32LE(Number(hashes.h64Raw(bytes) & 0xffffffffn))
  const size = Buffer.alloc(4)
  size.writeUInt32LE(bytes.length)
  return Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xa4]), size, zstdBlocks([bytes]), checksum])
}

/** A frame without either. */
export function zstdFrame(blocks: readonly Block[]): Buffer {
  return Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x38]), zstdBlocks(blocks)])
}

/** As they are, or one byte many times. */
function zstdBlocks(blocks: readonly Block[]): Buffer {
  return Buffer.concat(
    blocks.flatMap((block, i) => {
      const [type, size] = block instanceof Uint8Array ? [0, block.length] : [1, block.times]
      const header = Buffer.alloc(3)
      header.writeUIntLE((size << 3) | (type << 1) | (i === blocks.length - 1 ? 1 : 0), 0, 3)
      return [header, block instanceof Uint8Array ? block : Uint8Array.of(block.repeat)]
    }),
  )
}
