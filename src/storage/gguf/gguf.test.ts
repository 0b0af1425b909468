import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { openSafetensors } from '../../formats/safetensors.ts'
import { emptySplit, joinRow, splitBlocks } from './split.ts'
import { blockTypes, dequantizeBlocks, indexOfBrokenBlock, isBlockType, layoutOf } from './index.ts'

/** Made by `make_gguf_golden.py` with the gguf package; comparisons are of bytes. */
const reader = await openSafetensors(
  fileURLToPath(new URL('../../../test/golden/gguf/golden.safetensors', import.meta.url)),
)
const golden = new Map<string, Uint8Array>()
for (const name of reader.tensors.keys()) golden.set(name, await reader.read(name))
await reader.close()

test('every format has golden values', () => {
  expect([...golden.keys()].sort()).toEqual(blockTypes.flatMap((type) => [`${type}.bytes`, `${type}.values`]).sort())
  expect(isBlockType('Q4_K')).toBe(true)
  expect(isBlockType('IQ1_S')).toBe(false)
  expect(isBlockType('toString')).toBe(false)
})

describe.each(blockTypes)('%s', (type) => {
  const [bytes, values] = [golden.get(`${type}.bytes`)!, golden.get(`${type}.values`)!]
  const { blockBytes, blockElements } = layoutOf(type)

  test('its numbers are those of the reference, bit for bit', () => {
    const count = (bytes.length / blockBytes) * blockElements
    expect(values.byteLength).toBe(4 * count)
    const out = dequantizeBlocks(type, bytes, new Float32Array(count).fill(NaN))
    expect(Buffer.compare(new Uint8Array(out.buffer), values)).toBe(0)
  })

  test('bytes and numbers in the midst of other memory', () => {
    const blocks = 3
    const [shifted, memory] = [new Uint8Array(bytes.length + 1), new Float32Array(blocks * blockElements + 2)]
    shifted.set(bytes, 1)
    const from = shifted.subarray(1, 1 + blocks * blockBytes)
    dequantizeBlocks(type, from, memory.subarray(1, 1 + blocks * blockElements))
    const wanted = new Float32Array(values.slice(0, 4 * blocks * blockElements).buffer)
    expect(memory).toEqual(Float32Array.of(0, ...wanted, 0))
  })

  test('a block whose numbers are not finite is found', () => {
    expect(indexOfBrokenBlock(type, bytes)).toBe(-1)
    const places = Array.from({ length: blockBytes - 1 }, (_, at) => at).filter((at) => {
      // A NaN in f16 at any place: found where a scale is, and only there.
      const broken = bytes.slice()
      broken.set([0x00, 0x7e], 2 * blockBytes + at)
      const out = dequantizeBlocks(type, broken, new Float32Array(values.length / 4))
      const finite = out.every(Number.isFinite)
      expect(indexOfBrokenBlock(type, broken)).toBe(finite ? -1 : 2)
      return !finite
    })
    expect(places.length).toBeGreaterThan(0)
  })
})

test.each(['Q8_0', 'Q6_K'] as const)('%s in parts: the same numbers, in as many bytes', (type) => {
  const [bytes, values] = [golden.get(`${type}.bytes`)!, new Float32Array(golden.get(`${type}.values`)!.slice().buffer)]
  const { blockBytes, blockElements } = layoutOf(type)
  const width = 2 * blockElements
  const rows = values.length / width
  const split = emptySplit(type, rows, width)
  // In parts that are no whole rows.
  const cut = 3 * blockBytes
  splitBlocks(type, bytes.subarray(cut), split, 3)
  splitBlocks(type, bytes.subarray(0, cut), split, 0)
  const out = new Float32Array(values.length)
  for (let row = 0; row < rows; row++) joinRow(type, split, row, out.subarray(row * width, (row + 1) * width))
  expect(Buffer.compare(new Uint8Array(out.buffer), new Uint8Array(values.buffer))).toBe(0)
  const { codes, scales, steps } = split
  expect(codes.byteLength + scales.byteLength + steps.byteLength).toBe(bytes.length)
})
