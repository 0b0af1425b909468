import { expect, test } from 'vitest'
import { batchOf, makeBatch, type Batch } from '../text/batches.ts'
import type { Example } from '../text/example.ts'
import { addEmbeddingNoise } from './noise.ts'

const width = 32
const place = { alpha: 5, seed: 1, step: 3 }

function example(tokens: number, line: number): Example {
  return { ids: new Int32Array(tokens).fill(7), labelMask: new Uint8Array(tokens).fill(1), line }
}

function noiseOf(batch: Batch, changes: Partial<typeof place> = {}): Float32Array {
  const x = new Float32Array(batch.batch * batch.seq * width)
  addEmbeddingNoise(x, batch, { ...place, ...changes })
  return x
}

/** The noise of the example of this line. */
function of(line: number, batch: Batch, noise = noiseOf(batch)): Float32Array {
  const i = batch.examples.findIndex((one) => one.line === line)
  const [start = NaN, length = NaN] = [batch.starts[i], batch.examples[i]?.ids.length]
  return noise.slice(start * width, (start + length) * width)
}

test.each([64, 200])('is spread evenly within alpha / sqrt(tokens * width): %i tokens', (tokens) => {
  const noise = noiseOf(makeBatch([example(tokens, 1)]))
  const bound = 5 / Math.sqrt(tokens * width)
  const mean = noise.reduce((sum, value) => sum + value, 0) / noise.length
  const variance = noise.reduce((sum, value) => sum + (value - mean) ** 2, 0) / noise.length
  const most = noise.reduce((max, value) => Math.max(max, Math.abs(value)), 0)
  expect(most).toBeLessThanOrEqual(Math.fround(bound))
  expect(most).toBeGreaterThan(0.99 * bound)
  // Four standard errors of the mean and of the variance of an even spread.
  expect(Math.abs(mean)).toBeLessThan((4 * bound) / Math.sqrt(3 * noise.length))
  expect(Math.abs(variance / (bound ** 2 / 3) - 1)).toBeLessThan(4 * Math.sqrt(0.8 / noise.length))
})

test('belongs to the example, wherever it lies', () => {
  const [long, short, other] = [example(40, 1), example(9, 2), example(21, 3)]
  const batches = [
    makeBatch([short]),
    makeBatch([long, short]),
    batchOf([[long, short], [other]], {}),
    batchOf([[other, short, long]], { padToMultipleOf: 64 }),
  ]
  const [first, ...others] = batches.map((batch) => of(2, batch))
  expect(first).toHaveLength(9 * width)
  for (const noise of others) expect(noise).toEqual(first)
})

test('stays off the padding', () => {
  const batch = makeBatch([example(40, 1), example(9, 2)])
  expect(noiseOf(batch).subarray((40 + 9) * width)).toEqual(new Float32Array(31 * width))
})

test('differs from example to example, step to step, seed to seed', () => {
  const batch = makeBatch([example(9, 1), example(9, 2)])
  const noises = [
    of(1, batch),
    of(2, batch),
    of(1, batch, noiseOf(batch, { step: 4 })),
    of(1, batch, noiseOf(batch, { seed: 2 })),
  ]
  expect(new Set(noises.map((noise) => noise.join())).size).toBe(4)
})
