import { expect, test } from 'vitest'
import { type CellInput, compareCells, comparisonTable } from './comparison.ts'
import type { TrainResult } from './job.ts'

const result = (evalLoss: number, rest: Partial<TrainResult> = {}): TrainResult => ({
  steps: 10,
  evalLoss,
  tokenAccuracy: 0.5,
  metrics: {},
  seconds: 4,
  peakMemory: 2e8,
  artifactBytes: 1e6,
  lossSpikes: 0,
  hashes: {},
  ...rest,
})

function cell(method: CellInput['method'], losses: readonly number[], rest: Partial<TrainResult> = {}): CellInput {
  const runs = losses.map((loss, seed) => ({
    seed,
    folder: `${method}-${seed}`,
    result: result(loss, rest),
    served: undefined,
  }))
  return { method, r: method === 'full' ? undefined : 8, learningRate: 2e-4, runs, problem: undefined }
}

test('gaps to full fine-tuning are paired by seed, with their spread', () => {
  const { cells, reference } = compareCells([cell('full', [1, 2]), cell('lora', [1.1, 2.6])])
  expect(reference).toBe('full')
  const [full, lora] = cells.map(({ figures }) => figures!)
  expect(full?.gap).toBeUndefined()
  // 10 % and 30 %; not 3.7 / 3 of the means.
  expect(lora?.gap?.share).toBeCloseTo(0.2, 12)
  expect(lora?.gap?.spread).toBeCloseTo(0.2 / Math.SQRT2, 12)
  expect(lora?.evalLoss).toBeCloseTo(1.85, 12)
})

test('the table says what is noise, has metrics where runs have some, and why a cell was not trained', () => {
  const cells = [
    cell('full', [1], { metrics: { 'exact match': 0.25 } }),
    cell('lora', [1.2], { metrics: { 'exact match': 0.125 } }),
    { ...cell('qlora', []), problem: 'does not fit: needs 9 GB' },
  ]
  const compared = compareCells(cells)
  const { titles, rows } = comparisonTable(compared.cells, compared.reference)
  const column = (title: string): (string | undefined)[] => rows.map((row) => row[titles.indexOf(title)])
  expect(column('method')).toEqual(['full', 'lora r=8', 'qlora r=8'])
  expect(column('exact match').map(Number)).toEqual([0.25, 0.125, 0])
  expect(column('gap to full')).toEqual(['', expect.stringMatching(/^\+20/), ''])
  expect(column('against full')).toEqual(['', 'noise unknown', ''])
  expect(column('note')).toEqual(['', '', 'does not fit: needs 9 GB'])
  // Columns that no cell has a value in are left out.
  expect(titles).not.toContain('served')
})
