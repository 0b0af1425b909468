import { describe, expect, it } from 'vitest'
import { batchOf, evalBatches, exampleLosses, largestMicroBatch, makeBatch, stepBatches } from './batches.ts'
import type { Example } from './example.ts'
import { layOut } from './layout.ts'
import { tokensOf } from './row.ts'

const example = (length: number, line: number): Example => ({
  ids: Int32Array.from({ length }, (_, t) => line * 1000 + t),
  labelMask: new Uint8Array(length).fill(1),
  line,
})
/** Mostly short, some long. */
const lengths = Array.from({ length: 97 }, (_, i) => (i % 16 === 0 ? 400 + (i % 100) : 20 + ((i * 29) % 80)))
const many = lengths.map(example)
const longest = Math.max(...lengths)
const order = { examples: many, seed: 5, batchSize: 8, accumulation: 2, packing: true }

describe('packing', () => {
  it('takes the same examples a step as without', () => {
    const linesOf = (packing: boolean, step: number): number[] =>
      stepBatches({ ...order, packing, step })
        .batches.flatMap(({ examples }) => examples.map(({ line }) => line))
        .sort((a, b) => a - b)
    for (const step of [0, 3, 6, 11]) {
      expect(linesOf(true, step)).toEqual(linesOf(false, step))
      expect(linesOf(true, step).length).toBe(step === 6 ? 1 : 16)
    }
  })

  it('leaves less padding, in fewer rows, and no micro-batch is larger than the worst without', () => {
    for (const padToMultipleOf of [1, 64]) {
      const widest = Math.ceil(longest / padToMultipleOf) * padToMultipleOf
      let [packed, plain, real] = [0, 0, 0]
      for (let step = 0; step < 6; step++) {
        const positions = (packing: boolean): number => {
          const { batches } = stepBatches({ ...order, packing, padToMultipleOf, step })
          for (const { batch, seq } of batches) {
            expect(seq % padToMultipleOf).toBe(0)
            expect(seq).toBeLessThanOrEqual(widest)
            expect(batch * seq).toBeLessThanOrEqual(8 * widest)
          }
          if (packing) real += batches.reduce((total, { realTokens }) => total + realTokens, 0)
          return batches.reduce((total, { batch, seq }) => total + batch * seq, 0)
        }
        packed += positions(true)
        plain += positions(false)
      }
      expect(packed).toBeLessThan(plain)
      if (padToMultipleOf === 1) expect(1 - real / packed).toBeLessThan(0.06)
    }
  })

  it('keeps the bound where every example is as long as the longest', () => {
    const equal = Array.from({ length: 9 }, (_, i) => example(100, i))
    const batches = layOut(equal, 100, { batchSize: 2, packing: true })
    expect(batches.map((rows) => rows.map(tokensOf))).toEqual([[100, 100], [100, 100], [100, 100], [100, 100], [100]])
  })

  it('never fails to place lengths that no two rows can share', () => {
    const awkward = [8, 6, 6, 6, 7, 9, 10, 10, 5].map(example)
    for (const batchSize of [1, 2, 3]) {
      const batches = layOut(awkward, 10, { batchSize, packing: true })
      expect(batches.flat(2)).toHaveLength(9)
      for (const rows of batches) {
        const width = Math.max(...rows.map(tokensOf))
        expect(width).toBeLessThanOrEqual(10)
        expect(rows.length * width).toBeLessThanOrEqual(10 * batchSize)
      }
    }
  })

  it('serves evaluations of any size', () => {
    const valid = Array.from({ length: 700 }, (_, i) => example(10 + ((i * 13) % 300), i))
    const batches = evalBatches(valid, 4, { packing: true }).slice()
    expect(batches.reduce((total, { examples }) => total + examples.length, 0)).toBe(700)
    expect(new Set(batches.flatMap(({ examples }) => examples.map(({ line }) => line))).size).toBe(700)
    const [real, all] = [
      batches.reduce((total, { realTokens }) => total + realTokens, 0),
      batches.reduce((total, { batch, seq }) => total + batch * seq, 0),
    ]
    expect(1 - real / all).toBeLessThan(0.03)
  })
})

describe('batchOf', () => {
  const rows = [[example(3, 1), example(4, 2)], [example(5, 3)]]

  it('lays examples one after the other, none predicted from the one before', () => {
    const batch = batchOf(rows, { padToMultipleOf: 8 })
    expect(batch).toMatchObject({ batch: 2, seq: 8, realTokens: 12 })
    expect([...batch.starts]).toEqual([0, 3, 8])
    expect([...batch.ids.subarray(0, 8)]).toEqual([1000, 1001, 1002, 2000, 2001, 2002, 2003, 0])
    // Position 2, the last of the first example, predicts nothing.
    expect([...batch.rows]).toEqual([0, 1, 3, 4, 5, 8, 9, 10, 11])
    expect([...batch.targets]).toEqual([1001, 1002, 2001, 2002, 2003, 3001, 3002, 3003, 3004])
  })

  it('losses are reported by example', () => {
    const batch = batchOf(rows, {})
    const found = exampleLosses(batch, Float32Array.of(1, 2, 4, 8, 16, 32, 64, 128, 256))
    expect(found.map(({ example: { line }, lossSum, labelTokens }) => [line, lossSum, labelTokens])).toEqual([
      [1, 3, 2],
      [2, 28, 3],
      [3, 480, 4],
    ])
  })

  it('unpacked batches say so', () => {
    expect([...makeBatch([example(6, 1), example(3, 2)]).starts]).toEqual([0, 6])
  })
})

it('the largest micro-batch can be found again', () => {
  for (const packing of [true, false]) {
    const { size, step, index, microBatches } = largestMicroBatch({ ...order, packing }, 14)
    const { batches } = stepBatches({ ...order, packing, step })
    const found = batches[index]!
    const masks = found.examples.length > found.batch ? found.batch : 1
    expect(size).toMatchObject({ batch: found.batch, seq: found.seq, masks })
    let [positions, rows, most] = [0, 0, 0]
    for (let other = 0; other < 14; other++) {
      const { batches: all } = stepBatches({ ...order, packing, step: other })
      most = Math.max(most, all.length)
      for (const { batch, seq, rows: labels } of all) {
        positions = Math.max(positions, batch * seq)
        rows = Math.max(rows, labels.length)
      }
    }
    expect(size.rows).toBe(rows)
    expect(microBatches).toBe(most)
    // Longer rows cost more, so the one with most positions need not be the largest.
    expect(size.batch * size.seq).toBeGreaterThan(0.9 * positions)
  }
})
