import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import type { Quantization } from '../../src/config/index.ts'
import { quantizedNames, quantizedWeights } from '../../src/model/sources/quantized.ts'
import { openWeights } from '../../src/model/sources/checkpoint.ts'
import { storedBytes } from '../../src/storage/formats.ts'
import type { StoredWeight } from '../../src/storage/stored.ts'

const golden = fileURLToPath(new URL('.', import.meta.url))
const nf4: Quantization = { kind: '4bit', quantType: 'nf4', doubleQuant: true, blockSize: 64 }

test.each([
  ['quantized-nf4', nf4],
  ['quantized-int8', { kind: '8bit' }],
] as const)('%s: what transformers and bitsandbytes saved is what is quantized here', async (name, quantization) => {
  const [theirs, base] = [await openWeights(join(golden, name)), await openWeights(join(golden, 'bias-untied'))]
  const ours = quantizedWeights(base, quantization, () => false)
  const isLinear = quantizedNames(base)
  expect(theirs.quantization).toEqual(quantization)
  let [quantized, bytes] = [0, 0]
  const before = new Map<string, StoredWeight>()
  for (const spec of theirs.specs) {
    const [found, expected] = [await theirs.load(spec.name), await ours.load(spec.name)]
    // The whole record: shape, codes, scales, map and offset.
    expect(found, spec.name).toEqual(expected)
    expect(theirs.storage(spec.name)).toEqual(ours.storage(spec.name))
    // A weight of this shape that was loaded before lends its memory.
    const shape = spec.shape.join()
    const reuse = before.get(shape)
    const again = await theirs.load(spec.name, reuse)
    expect(again, spec.name).toEqual(expected)
    if (reuse !== undefined) buffersOf(again).forEach((buffer, i) => expect(buffer).toBe(buffersOf(reuse)[i]))
    before.set(shape, again)
    if (isLinear(spec.name)) quantized++
    if (isLinear(spec.name)) bytes += storedBytes(found)
  }
  expect(quantized).toBe(14)
  console.log(`${name}: ${quantized} quantized weights, ${bytes} bytes`)
  await Promise.all([theirs.close(), base.close()])
})

function buffersOf(weight: StoredWeight): ArrayBufferLike[] {
  if ('bytes' in weight || 'blocks' in weight || 'numbers' in weight || 'slices' in weight)
    throw new Error('no quantization of bitsandbytes')
  const arrays =
    'packed' in weight
      ? [weight.packed.codes, ...Object.values(weight.packed.scales).filter((value) => typeof value === 'object')]
      : [weight.data, ...('scale' in weight ? [weight.scale] : [])]
  return arrays.map((array) => (array as Uint8Array).buffer)
}
