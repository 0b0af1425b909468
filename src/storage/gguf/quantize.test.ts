import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { openSafetensors } from '../../formats/safetensors.ts'
import { dequantizeBlocks, layoutOf } from './index.ts'
import { quantizeBlocks, writtenBlocks, type WrittenBlock } from './quantize.ts'

/** Made by `make_gguf_quantized.py` with the gguf package; comparisons are of bytes. */
const reader = await openSafetensors(
  fileURLToPath(new URL('../../../test/golden/gguf/quantized.safetensors', import.meta.url)),
)
const values = new Float32Array((await reader.read('values')).buffer)
const golden = new Map<string, Uint8Array>()
for (const type of Object.keys(writtenBlocks)) golden.set(type, await reader.read(`${type}.bytes`))
await reader.close()
const types = Object.keys(writtenBlocks) as WrittenBlock[]

test.each(types)('%s: the bytes of the reference', (type) => {
  const wanted = golden.get(type)!
  const { blockBytes, blockElements } = layoutOf(type)
  expect(wanted.length).toBe((values.length / blockElements) * blockBytes)
  expect(wanted.length / blockBytes).toBeGreaterThan(200)
  const found = quantizeBlocks(type, values)
  const other = found.findIndex((byte, i) => byte !== wanted[i])
  expect(other, `block ${Math.floor(other / blockBytes)}`).toBe(-1)
})

test.each(types)('%s: numbers come back within half a step', (type) => {
  const data = Float32Array.from({ length: 320 }, (_, i) => Math.sin(i) * 10 ** ((i % 7) - 3))
  const back = dequantizeBlocks(type, quantizeBlocks(type, data), new Float32Array(320))
  for (let i = 0; i < 320; i += 32) {
    const most = Math.max(...data.subarray(i, i + 32).map(Math.abs))
    // Of Q4_0 the side that is not the largest ends one step earlier.
    const step = type === 'Q8_0' ? most / 127 / 2 : most / 8
    for (let j = i; j < i + 32; j++) expect(Math.abs(back[j]! - data[j]!)).toBeLessThanOrEqual(step * 1.01)
  }
})

test('numbers that are no whole blocks are a mistake', () => {
  expect(() => quantizeBlocks('Q8_0', new Float32Array(33))).toThrow(/33 numbers are no whole blocks/)
})
