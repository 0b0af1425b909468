import { describe, expect, it } from 'vitest'
import { batchOfRows, exampleLosses, evalBatches, largestMicroBatch, stepBatches } from './batches.ts'
import type { Example } from './example.ts'
import { layOut } from './layout.ts'
import { tokensOf } from './row.ts'
import { prefixSavings } from './savings.ts'

const example = (ids: readonly number[], line: number, firstLabel = ids.length - 1): Example => ({
  ids: Int32Array.from(ids),
  labelMask: new Uint8Array(ids.length).fill(1, firstLabel),
  line,
})
const run = (first: number, length: number): number[] => Array.from({ length }, (_, i) => first + i)
const instruction = run(1, 100)
/** Tickets of one instruction. */
const tickets = Array.from({ length: 24 }, (_, i) => example([...instruction, ...run(1000 * (i + 1), 15)], i + 1))
const apart = Array.from({ length: 24 }, (_, i) => example(run(1000 * (i + 1), 50 + ((i * 7) % 60)), i + 1))
const options = { batchSize: 8, sharePrefixes: true }
const longest = 115
const order = { examples: tickets, seed: 1, ...options, accumulation: 3 }

describe('a common beginning', () => {
  it('is laid out once a row, in the rows and micro-batches that the memory of separate rows allows', () => {
    const batches = layOut(tickets, longest, options)
    expect(
      batches
        .flat(2)
        .map(({ example: { line } }) => line)
        .sort((a, b) => a - b),
    ).toEqual(run(1, 24))
    for (const row of batches.flat()) {
      expect(row.map(({ shared }) => shared)).toEqual(row.map((_, i) => (i === 0 ? 0 : 100)))
      expect(row.length).toBeGreaterThan(4)
    }
    for (const rows of batches) {
      const width = Math.max(...rows.map(tokensOf))
      expect(rows.length * width).toBeLessThanOrEqual(8 * longest)
      expect(rows.length * width ** 2).toBeLessThanOrEqual(8 * longest ** 2)
    }
  })

  it('is not shared where one example a micro-batch is all the memory there is', () => {
    const batches = layOut(tickets, longest, { ...options, batchSize: 1 })
    expect(batches).toHaveLength(24)
  })

  it('changes nothing where there is none: the very rows of a step without', () => {
    for (const packing of [true, false]) {
      const separate = layOut(apart, 110, { batchSize: 8, packing })
      expect(layOut(apart, 110, { ...options, packing })).toEqual(separate)
    }
  })

  it('of a few tokens, as all texts begin, is not shared', () => {
    const bos = apart.map(({ ids, line }) => example([1, 2, 3, ...ids], line))
    expect(layOut(bos, 113, options)).toEqual(layOut(bos, 113, { batchSize: 8 }))
  })

  it('ends before the position that predicts the first label, and where positions are seen in another way', () => {
    const early = tickets.map(({ ids, line }, i) => example([...ids], line, i % 2 === 0 ? 60 : 114))
    const placed = layOut(early, longest, options).flat(2)
    for (const {
      shared,
      example: { line },
    } of placed)
      expect(shared).toBeLessThanOrEqual(line % 2 === 1 ? 59 : 100)
    const longer = tickets.map(({ ids, line }, i) => example([...ids, ...run(1, i % 2)], line))
    const regimeOf = (length: number): string => String(length)
    for (const row of layOut(longer, 116, { ...options, regimeOf }).flat()) {
      expect(new Set(row.map(({ example: { ids } }) => ids.length)).size).toBe(1)
    }
  })

  it('nests, and a text that others continue is the first of them', () => {
    const documents = [run(300, 40), run(400, 40)]
    const nested = documents.flatMap((document, d) => [
      ...Array.from({ length: 5 }, (_, i) =>
        example([...instruction, ...document, ...run(1000 + 100 * d + 10 * i, 8)], 10 * d + i),
      ),
      example([...instruction, ...document], 10 * d + 9),
    ])
    const batches = layOut(nested, 148, { ...options, batchSize: 16 })
    expect(batches.flat()).toHaveLength(1)
    expect(batches.flat(2).map(({ shared, example: { line } }) => [line, shared])).toEqual([
      [9, 0],
      ...run(0, 5).map((line) => [line, 140]),
      [19, 100],
      ...run(10, 5).map((line) => [line, 140]),
    ])
  })

  it('is shared in packed rows, too', () => {
    const mixed = [...tickets, ...apart]
    const batches = layOut(mixed, longest, { ...options, packing: true })
    expect(new Set(batches.flat(2).map(({ example: one }) => one)).size).toBe(48)
    const tokens = (some: readonly Example[]): number => some.reduce((total, { ids }) => total + ids.length, 0)
    expect(batches.flat().reduce((total, row) => total + tokensOf(row), 0)).toBeLessThan(tokens(mixed) - 1500)
  })
})

it('rows of a tree: own tokens alone, each label once, losses by example', () => {
  const [a, b] = [example([1, 2, 3, 4, 5, 6], 1, 4), example([1, 2, 3, 7, 8], 2, 3)]
  const batch = batchOfRows(
    [
      [
        { example: a, shared: 0 },
        { example: b, shared: 2 },
      ],
    ],
    {},
  )
  expect([...batch.ids]).toEqual([1, 2, 3, 4, 5, 6, 3, 7, 8])
  expect(batch).toMatchObject({ realTokens: 9, starts: Int32Array.of(0, 6), lengths: Int32Array.of(6, 5) })
  expect([...batch.rows]).toEqual([3, 4, 6, 7])
  expect([...batch.targets]).toEqual([5, 6, 7, 8])
  const found = exampleLosses(batch, Float32Array.of(1, 2, 4, 8))
  expect(found.map(({ lossSum, labelTokens }) => [lossSum, labelTokens])).toEqual([
    [3, 2],
    [12, 2],
  ])
})

it('a step takes the same examples, whatever they share; the largest micro-batch is found again', () => {
  const linesOf = (sharePrefixes: boolean): number[] =>
    stepBatches({ ...order, sharePrefixes, accumulation: 2, step: 1 })
      .batches.flatMap(({ examples }) => examples.map(({ line }) => line))
      .sort((a, b) => a - b)
  expect(linesOf(true)).toEqual(linesOf(false))
  const { size, step, index, microBatches } = largestMicroBatch(order, 2)
  const { batches } = stepBatches({ ...order, step })
  expect(size).toMatchObject({ batch: batches[index]!.batch, seq: batches[index]!.seq, masks: batches[index]!.batch })
  expect(microBatches).toBe(batches.length)
})

it('evaluations share, and what is saved can be told', () => {
  const batches = evalBatches(tickets, 8, { sharePrefixes: true })
  expect(batches.slice().flatMap(({ examples }) => examples)).toHaveLength(24)
  const positions = batches.slice().reduce((total, { batch, seq }) => total + batch * seq, 0)
  expect(positions).toBeLessThan((24 * longest) / 2.5)
  const savings = prefixSavings(order)
  expect(savings).toMatchObject({ batchSize: 8, accumulation: 3, separate: 24 * longest })
  expect(savings.shared).toBe(positions)
  expect(prefixSavings({ ...order, examples: apart })).toMatchObject({
    shared: prefixSavings({ ...order, examples: apart }).separate,
  })
})
