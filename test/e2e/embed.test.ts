import { join } from 'node:path'
import { loadModel, type Model } from 'lowrank'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { writeRandomAdapter } from '../../scripts/random-adapter.ts'
import { quickstart, temporaryFolder } from './support.ts'

/*
 * `embed` of the API; what the vectors are is compared with transformers in `test/golden/cached.test.ts`.
 */

const texts = ['Where is my parcel?', 'I was charged twice for the lamp. '.repeat(40), 'Hello', 'Where is my parcel?']
let model: Model
let base: Float32Array[]

beforeAll(async () => {
  model = await loadModel({ model: quickstart })
  base = await model.embed(texts)
})
afterAll(() => model.close())

function dot(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0)
}

test('vectors of length 1, in the order of their texts, alone and together the same', async () => {
  expect(base).toHaveLength(texts.length)
  for (const [i, text] of texts.entries()) {
    const [alone] = await model.embed([text])
    expect(dot(base[i]!, base[i]!)).toBeCloseTo(1, 6)
    expect(dot(base[i]!, alone!)).toBeCloseTo(1, 6)
  }
  expect(base[3]).toEqual(base[0])
  expect(dot(base[0]!, base[1]!)).toBeLessThan(0.999)
  expect(await model.embed([])).toEqual([])
})

test('with an adapter or without, between two generations', async () => {
  const adapter = join(temporaryFolder(), 'adapter')
  await writeRandomAdapter(adapter, quickstart, 4)
  const before = await model.generate('Ticket', { maxNewTokens: 8 })
  await model.loadAdapter('other', adapter)
  const [own] = await model.embed(texts.slice(0, 1), { adapter: 'other' })
  expect(own).not.toEqual(base[0])
  expect(dot(own!, own!)).toBeCloseTo(1, 6)
  expect(await model.embed(texts, { adapter: null })).toEqual(base)
  expect(await model.generate('Ticket', { maxNewTokens: 8 })).toBe(before)
})

test('what cannot be embedded is refused', async () => {
  const refused = (call: Promise<unknown>, message: string): Promise<void> =>
    expect(call).rejects.toMatchObject({ code: 'config', message: expect.stringContaining(message) as string })
  await refused(model.embed('text' as never), 'texts: expected a list of texts')
  await refused(model.embed(['a', '']), 'texts[1]: found "", expected a non-empty string')
  await refused(model.embed(['a', 3 as never]), 'texts[1]: found 3')
  await refused(model.embed(['a'], { adapter: 'none' }), 'adapter: "none" is not loaded')
  await refused(model.embed(['a'], { adaptor: 'x' } as never), 'adaptor: unknown option. Did you mean "adapter"?')
  await refused(model.embed(['a', 'parcel '.repeat(600)]), 'text 2 has')
  await expect(model.embed(texts, {}, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'cancelled' })
  const fast = await loadModel({ model: quickstart, precision: 'fast' })
  try {
    await refused(fast.embed(['a']), 'the model was loaded with precision "fast"')
    expect(await fast.generate('Ticket', { maxNewTokens: 2 })).not.toBe('')
  } finally {
    await fast.close()
  }
})
