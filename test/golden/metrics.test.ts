import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { bleu } from '../../src/metrics/bleu.ts'
import { accuracyOf, confusionOf, macroF1Of } from '../../src/metrics/classification.ts'
import { rouge } from '../../src/metrics/rouge.ts'

/** See `make_metrics_golden.py`. */
interface Golden {
  readonly pairs: readonly (readonly [string, string, number, number, number, number])[]
  readonly corpora: readonly (readonly [number, number, number])[]
  readonly labels: readonly {
    readonly labels: readonly string[]
    readonly expected: readonly string[]
    readonly predicted: readonly string[]
    readonly accuracy: number
    readonly macroF1: number
    readonly confusion: readonly (readonly number[])[]
  }[]
}

const golden = JSON.parse(await readFile(join(import.meta.dirname, 'metrics', 'golden.json'), 'utf8')) as Golden
const tolerance = 1e-6

/** The largest difference of two lists of numbers; what is no number is infinitely far. */
function difference(found: readonly number[], wanted: readonly number[]): number {
  return found.reduce((most, value, i) => {
    const one = Math.abs(value - wanted[i]!)
    return Number.isNaN(one) ? Infinity : Math.max(most, one)
  }, 0)
}

test('ROUGE and the BLEU of a sentence are those of rouge-score and sacrebleu', () => {
  expect(golden.pairs.length).toBeGreaterThanOrEqual(200)
  const wrong = golden.pairs.filter(([expected, completion, ...wanted]) => {
    const { rouge1, rouge2, rougeL } = rouge(expected, completion)
    const found = [rouge1, rouge2, rougeL, bleu([{ expected, completion }], { effectiveOrder: true })]
    return difference(found, wanted) > tolerance
  })
  expect(wrong).toEqual([])
  // Not all of them are 0 or 1.
  for (const column of [2, 3, 4, 5] as const) {
    const between = golden.pairs.filter((pair) => pair[column] > 0 && pair[column] < (column === 5 ? 99 : 1))
    expect(between.length).toBeGreaterThan(80)
  }
})

test('the BLEU of a corpus is that of sacrebleu', () => {
  expect(golden.corpora.length).toBeGreaterThanOrEqual(20)
  const found = golden.corpora.map(([first, count]) =>
    bleu(golden.pairs.slice(first, first + count).map(([expected, completion]) => ({ expected, completion }))),
  )
  const wanted = golden.corpora.map(([, , score]) => score)
  expect(difference(found, wanted)).toBeLessThan(tolerance)
  expect(found.filter((score) => score > 0 && score < 99).length).toBeGreaterThan(15)
})

test('accuracy, macro F1 and confusion are those of scikit-learn', () => {
  for (const { labels, expected, predicted, accuracy, macroF1, confusion } of golden.labels) {
    const found = confusionOf(
      expected.map((label, i) => ({ expected: label, predicted: predicted[i]! })),
      labels,
    )
    expect(found.counts).toEqual(confusion)
    expect(difference([accuracyOf(found), macroF1Of(found)], [accuracy, macroF1])).toBeLessThan(tolerance)
    const missing = predicted.filter((label) => !labels.includes(label)).length
    expect(found.other.reduce((total, count) => total + count, 0)).toBe(missing)
  }
})
