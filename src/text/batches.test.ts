import { describe, expect, it } from 'vitest'
import { evalBatches, exampleLosses, largestMicroBatch, makeBatch, stepBatches, stepsPerEpoch } from './batches.ts'
import type { Example } from './example.ts'

/** Ids line * 100 + position; labels from `firstLabel` on. */
const example = (line: number, length: number, firstLabel = 1): Example => ({
  ids: Int32Array.from({ length }, (_, t) => line * 100 + t),
  labelMask: new Uint8Array(length).fill(1, firstLabel),
  line,
})
const many = Array.from({ length: 23 }, (_, i) => example(i + 1, 2 + ((i * 7) % 11)))
const linesOf = (batches: readonly { examples: readonly Example[] }[]): number[] =>
  batches.flatMap((batch) => batch.examples.map(({ line }) => line))

it('makeBatch pads on the right and pairs each position with the label that follows it', () => {
  const two: Example = { ...example(2, 3, 3), labelMask: Uint8Array.of(0, 1, 0) }
  const batch = makeBatch([example(1, 4, 2), two])
  expect(batch).toMatchObject({ batch: 2, seq: 4 })
  expect([...batch.ids]).toEqual([100, 101, 102, 103, 200, 201, 202, 0])
  expect([...batch.rows]).toEqual([1, 2, 4])
  expect([...batch.targets]).toEqual([102, 103, 201])
})

it('exampleLosses sums the losses of rows for the example they belong to', () => {
  const batch = makeBatch([
    example(1, 4, 2),
    { ...example(2, 3, 3), labelMask: Uint8Array.of(0, 0, 0) },
    example(3, 3, 2),
  ])
  const found = exampleLosses(batch, Float32Array.of(1, 2, 4))
  expect(found.map(({ example, ...rest }) => ({ line: example.line, ...rest }))).toEqual([
    { line: 1, lossSum: 3, labelTokens: 2 },
    { line: 2, lossSum: 0, labelTokens: 0 },
    { line: 3, lossSum: 4, labelTokens: 1 },
  ])
})

it('the largest micro-batch is the one of most positions; that of most scores is known beside it', () => {
  const order = { seed: 3, batchSize: 16, accumulation: 1 }
  const short = Array.from({ length: 15 }, (_, i) => example(i + 1, 180))
  const { size } = largestMicroBatch({ ...order, examples: [example(16, 1000), ...short] }, 1)
  expect(size).toMatchObject({ batch: 15, seq: 180, other: { batch: 1, seq: 1000, rows: size.rows } })
  expect(largestMicroBatch({ ...order, examples: short }, 1).size.other).toBeUndefined()
})

describe('stepBatches', () => {
  const order = { examples: many, seed: 3, batchSize: 4, accumulation: 2 }

  it('takes each example once an epoch, the last step with what is left', () => {
    expect(stepsPerEpoch(order)).toBe(3)
    const epoch = [0, 1, 2].map((step) => stepBatches({ ...order, step }))
    expect(epoch.map(({ batches }) => batches.map(({ batch }) => batch))).toEqual([
      [4, 4],
      [4, 4],
      [4, 3],
    ])
    expect(epoch.map((step) => step.epoch)).toEqual([8 / 23, 16 / 23, 1])
    const lines = epoch.flatMap(({ batches }) => linesOf(batches))
    expect(lines.sort((a, b) => a - b)).toEqual(many.map(({ line }) => line))
    expect(stepBatches({ ...order, step: 5 }).epoch).toBe(2)
  })

  it('is a function of seed and step; epochs differ', () => {
    const lines = (step: number, seed = 3): number[] => linesOf(stepBatches({ ...order, seed, step }).batches)
    expect(lines(4)).toEqual(lines(4))
    expect(lines(0)).not.toEqual(lines(3))
    expect(lines(0)).not.toEqual(lines(0, 4))
  })

  it('sees the same examples a step however they are split, similar lengths together', () => {
    const sets = [
      [8, 1],
      [4, 2],
      [2, 4],
      [1, 8],
    ].map(([batchSize, accumulation]) => {
      const { batches } = stepBatches({ ...order, batchSize: batchSize!, accumulation: accumulation!, step: 1 })
      const lengths = batches.flatMap((batch) => batch.examples.map(({ ids }) => ids.length))
      expect(lengths).toEqual(lengths.toSorted((a, b) => b - a))
      return linesOf(batches)
    })
    for (const lines of sets) expect(lines).toEqual(sets[0])
  })
})

it('evalBatches takes each example once, sorted by length', () => {
  const batches = evalBatches(many, 5).slice()
  expect(Math.max(...batches.map(({ batch }) => batch))).toBeLessThanOrEqual(5)
  expect(linesOf(batches).sort((a, b) => a - b)).toEqual(many.map(({ line }) => line))
  expect(batches.map(({ seq }) => seq)).toEqual(batches.map(({ seq }) => seq).toSorted((a, b) => b - a))
})

it('micro-batches are cut where lengths differ, and only there', () => {
  const example = (length: number, line: number): Example => ({
    ids: new Int32Array(length).fill(1),
    labelMask: new Uint8Array(length).fill(1),
    line,
  })
  const shapes = (lengths: number[]) =>
    evalBatches(lengths.map(example), 4)
      .slice()
      .map(({ batch, seq }) => `${batch}x${seq}`)
  expect(shapes([500, 100, 100, 100])).toEqual(['1x500', '3x100'])
  expect(shapes([110, 100, 105, 100])).toEqual(['4x110'])
  expect(shapes([100, 100, 100, 100, 100])).toHaveLength(2)
})
