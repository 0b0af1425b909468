import type { GgmlType } from '../../util/ggml-types.ts'
import { kernelBytes } from './bytes.ts'

/*
 * Packs and unpacks weights by WebAssembly, a tile at a time: what a tile is made of and its numbers stay in a core's own cache. What the
 * functions do is said where they are written, in `kernels/kernels.ts` at the root.
 */

/** Numbers of a tile: whole blocks of every format. */
const tile = 2 ** 15

/**
 * Where in the memory of the kernels numbers are, what is packed (at most one byte and a bit a number), the scales of blocks, and a table of
 * 256 numbers at most. Numbers begin in the middle of a page: copied from the beginning of one to some bytes behind the beginning of another,
 * where allocated memory begins, they take 2.2 ns each instead of 0.15 (AMD EPYC, `rep movsb`).
 */
const numbersAt = 2048
const packedAt = numbersAt + 4 * tile
const scalesAt = packedAt + 1.5 * tile
const tableAt = scalesAt + 0.5 * tile

type UnpackBlocks = (from: number, to: number, blocks: number) => void

type BlockKernel = `q4_${0 | 1}` | `q5_${0 | 1}` | 'q8_0' | 'iq4_nl' | `q${2 | 3 | 4 | 5 | 6}_k`

interface KernelExports extends Readonly<Record<BlockKernel, UnpackBlocks>> {
  readonly memory: { readonly buffer: ArrayBuffer }
  readonly bnb4: (table: number, codes: number, scales: number, to: number, blocks: number, blockBytes: number) => void
  readonly maxima: (values: number, to: number, blocks: number, blockBytes: number) => void
  readonly packBnb4: (
    borders: number,
    order: number,
    values: number,
    factors: number,
    to: number,
    blocks: number,
    blockSize: number,
  ) => void
  readonly bnb8: (
    map: number,
    codes: number,
    scales: number,
    to: number,
    count: number,
    blockSize: number,
    offset: number,
  ) => void
}

interface Kernels {
  readonly run: KernelExports
  readonly bytes: Uint8Array
  /** The memory as floats, from the numbers, the scales and the table on. */
  readonly numbers: Float32Array
  readonly scales: Float32Array
  readonly table: Float32Array
}

/** What is used of it: TypeScript has its types in the library of browsers alone. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object
  readonly Instance: new (module: object) => { readonly exports: object }
}

let opened: Kernels | undefined

function kernels(): Kernels {
  if (opened !== undefined) return opened
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(Buffer.from(kernelBytes, 'base64')))
  const run = exports as KernelExports
  const { buffer } = run.memory
  const [numbers, scales, table] = [numbersAt, scalesAt, tableAt].map((at) => new Float32Array(buffer, at))
  return (opened = { run, bytes: new Uint8Array(buffer), numbers: numbers!, scales: scales!, table: table! })
}

/** Whole blocks of llama.cpp to f32, of so many bytes and numbers each. `out` has an element for each number. */
export function unpackBlocks(
  kernel: BlockKernel,
  { blockBytes, blockElements }: Pick<GgmlType, 'blockBytes' | 'blockElements'>,
  packed: Uint8Array,
  out: Float32Array,
): void {
  const { run, bytes, numbers } = kernels()
  for (const { start, count } of tiles(out)) {
    const [first, blocks] = [start / blockElements, count / blockElements]
    bytes.set(packed.subarray(first * blockBytes, (first + blocks) * blockBytes), packedAt)
    run[kernel](packedAt, numbersAt, blocks)
    out.set(numbers.subarray(0, count), start)
  }
}

/** A number for each block of `blockSize` others, a power of two from 32 to 4,096; the last block may be shorter. */
interface OfBlocks {
  readonly scales: Float32Array
  readonly blockSize: number
}

/** table[code] * scale to f32, two codes to a byte, the first in the high bits. `table` has 16 numbers. */
export function unpackFourBit(
  table: Float32Array,
  codes: Uint8Array,
  { scales, blockSize }: OfBlocks,
  out: Float32Array,
): void {
  const memory = kernels()
  const { run, bytes, numbers } = memory
  writeInPlanes(table, bytes)
  for (const { start, count } of tiles(out)) {
    const [first, blocks] = [start / blockSize, Math.ceil(count / blockSize)]
    bytes.set(codes.subarray(start / 2, Math.ceil((start + count) / 2)), packedAt)
    memory.scales.set(scales.subarray(first, first + blocks))
    run.bnb4(tableAt, packedAt, scalesAt, numbersAt, blocks, blockSize / 2)
    out.set(numbers.subarray(0, count), start)
  }
}

/** The largest magnitude of each block, NaN or infinity where an element is. Of whole blocks. */
export function blockMaxima(values: Float32Array, blockSize: number, out: Float32Array): void {
  const { run, numbers, scales } = kernels()
  for (const { start, count } of tiles(values)) {
    const blocks = count / blockSize
    numbers.set(values.subarray(start, start + count))
    run.maxima(numbersAt, scalesAt, blocks, 4 * blockSize)
    out.set(scales.subarray(0, blocks), start / blockSize)
  }
}

/** The borders between 16 numbers in ascending order, 15, and the code of each. A value on a border belongs below. */
export interface FourBitOrder {
  readonly borders: Float32Array
  readonly codes: Uint8Array
}

/** Codes of value * scale, two to a byte, the first in the high bits. Of whole blocks. */
export function packFourBit(
  order: FourBitOrder,
  values: Float32Array,
  { scales, blockSize }: OfBlocks,
  codes: Uint8Array,
): void {
  const memory = kernels()
  const { run, bytes, numbers, table } = memory
  const orderAt = tableAt + order.borders.byteLength + 4
  table.set(order.borders)
  bytes.set(order.codes, orderAt)
  for (const { start, count } of tiles(values)) {
    const [first, blocks] = [start / blockSize, count / blockSize]
    numbers.set(values.subarray(start, start + count))
    memory.scales.set(scales.subarray(first, first + blocks))
    run.packBnb4(tableAt, orderAt, numbersAt, scalesAt, packedAt, blocks, blockSize)
    codes.set(bytes.subarray(packedAt, packedAt + count / 2), start / 2)
  }
}

/** map[code] * scale + offset to f32. `map` has 256 numbers. */
export function unpackEightBit(
  map: Float32Array,
  codes: Uint8Array,
  { scales, blockSize, offset }: OfBlocks & { readonly offset: number },
  out: Float32Array,
): void {
  const memory = kernels()
  const { run, bytes, numbers, table } = memory
  table.set(map)
  for (const { start, count } of tiles(out)) {
    const first = start / blockSize
    bytes.set(codes.subarray(start, start + count), packedAt)
    memory.scales.set(scales.subarray(first, first + Math.ceil(count / blockSize)))
    run.bnb8(tableAt, packedAt, scalesAt, numbersAt, count, blockSize, offset)
    out.set(numbers.subarray(0, count), start)
  }
}

function* tiles({ length }: Float32Array): Generator<{ readonly start: number; readonly count: number }> {
  for (let start = 0; start < length; start += tile) yield { start, count: Math.min(tile, length - start) }
}

/** The first bytes of all 16 numbers, then the second bytes, and so on. */
function writeInPlanes(table: Float32Array, bytes: Uint8Array): void {
  const own = new Uint8Array(table.buffer, table.byteOffset, table.byteLength)
  for (let i = 0; i < own.length; i++) bytes[tableAt + 16 * (i % 4) + (i >> 2)] = own[i]!
}
