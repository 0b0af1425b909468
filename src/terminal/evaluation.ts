import { type Confusion, metricText, metricValues } from '../metrics/index.ts'
import type { EvalResult, EvaluationResult } from '../train/events.ts'
import { count, number, percent, plural } from '../util/format.ts'
import { table } from './format.ts'

/** An evaluation in words: one line, or a table where there is more than the loss. */
export function evaluationLines(result: EvaluationResult, { adapter }: { readonly adapter: boolean }): string[] {
  const { baselines = [], metrics = {}, confusion } = result
  if (baselines.length === 0 && Object.keys(metrics).length === 0) return [lossLine(result)]
  const keys = Object.keys(metrics)
  const row = (name: string, one: EvalResult): string[] => [
    name,
    number(one.loss),
    percent(one.tokenAccuracy),
    ...keys.map((key) => metricText(key, one.metrics?.[key])),
  ]
  const rows = [
    ...baselines.map((one) => row(one.shots === 0 ? 'base' : `base + ${plural(one.shots, 'example')}`, one)),
    row(adapter ? 'with adapter' : 'model', result),
  ]
  const titles = ['', 'loss', 'token accuracy', ...keys.map((key) => metricValues[key]?.what ?? key)]
  return [
    ...table(titles, rows),
    `(${count(result.labelTokens)} label tokens, ${count(result.examples)} examples)`,
    ...(confusion === undefined ? [] : ['', ...confusionLines(confusion)]),
  ]
}

function lossLine(result: EvalResult): string {
  return (
    `loss ${number(result.loss)}  perplexity ${number(result.perplexity)}  ` +
    `token accuracy ${percent(result.tokenAccuracy)}  ` +
    `(${count(result.labelTokens)} label tokens, ${count(result.examples)} examples)`
  )
}

/** More labels than these are no table that anyone reads on a terminal. */
const mostLabels = 12

function confusionLines({ labels, counts, other }: Confusion): string[] {
  if (labels.length > mostLabels) return []
  const hasOther = other.some((times) => times > 0)
  const rows = labels.map((label, i) => [label, ...counts[i]!.map(String), ...(hasOther ? [String(other[i])] : [])])
  return table(['expected \\ given', ...labels, ...(hasOther ? ['(other)'] : [])], rows)
}
