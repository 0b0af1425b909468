import type { DataReport } from '../text/data-report.ts'
import type { PreviewRow, PreviewToken } from '../text/preview.ts'
import type { PrefixSavings } from '../text/savings.ts'
import { findingKinds } from '../text/findings.ts'
import { count, percent, plural } from '../util/format.ts'
import { printable, wrap } from './format.ts'

/** A report on data, as a page of `width` columns. */
export function reportLines(report: DataReport, width: number): string[] {
  const { data, shape, template, examples, malformed, tokens, labelTokens, lengths, truncated, dropped } = report
  const facts: [string, string][] = [
    ['data', data],
    ['shape', shape],
    ...(template === undefined ? [] : ([['template', template]] as [string, string][])),
    ['examples', count(examples)],
    ['tokens', `${count(tokens)}, ${count(labelTokens)} of them labels (${percent(labelTokens / tokens)})`],
    [
      'an example',
      `median ${count(lengths.median)} tokens, 90 % up to ${count(lengths.p90)}, 99 % up to ${count(lengths.p99)}, longest ${count(lengths.longest)}`,
    ],
    ...(truncated > 0
      ? ([['cut', `${plural(truncated, 'example')} longer than maxLength`]] as [string, string][])
      : []),
    ...(dropped > 0
      ? ([['left out', `${plural(dropped, 'example')} of which no label is left`]] as [string, string][])
      : []),
    ...(report.prefixes === undefined ? [] : ([['prefixes', prefixText(report.prefixes)]] as [string, string][])),
    ...(malformed > 0 ? ([['malformed', plural(malformed, 'record')]] as [string, string][]) : []),
  ]
  return [
    ...facts.flatMap(([name, value]) => hanging(name.padEnd(12), value, width)),
    '',
    'tokens an example',
    ...histogramLines(report, width),
    ...problemLines(report, width),
    '',
    ...findingsOf(report, width),
  ]
}

function prefixText({ batchSize, accumulation, separate, shared }: PrefixSavings): string {
  const steps = `in steps of ${batchSize} x ${accumulation}`
  if (shared >= separate) return `nothing worth sharing ${steps}`
  const saved = `${(separate / shared).toFixed(1)} times fewer`
  return `${count(shared)} positions to compute ${steps} instead of ${count(separate)}, ${saved}: what examples begin with is shared`
}

/** A text behind a label, its further lines under its first. */
function hanging(label: string, text: string, width: number): string[] {
  const lines = wrap(printable(text), Math.max(20, width - label.length))
  return lines.map((line, i) => `${i === 0 ? label : ' '.repeat(label.length)}${line}`.trimEnd())
}

function histogramLines({ histogram }: DataReport, width: number): string[] {
  const most = Math.max(...histogram.map((bin) => bin.count))
  const names = histogram.map(({ from, to }) => `${count(from)}-${count(to)}`)
  const nameWidth = Math.max(...names.map((name) => name.length))
  const countWidth = count(most).length
  const room = Math.max(10, width - nameWidth - countWidth - 6)
  return histogram.map(({ count: found }, i) => {
    // What there is is seen, however little.
    const bar = found === 0 ? '' : '#'.repeat(Math.max(1, Math.round((room * found) / most)))
    return `  ${names[i]!.padStart(nameWidth)}  ${count(found).padStart(countWidth)}  ${bar}`.trimEnd()
  })
}

function problemLines({ malformed, problems }: DataReport, width: number): string[] {
  if (malformed === 0) return []
  const shown = problems.slice(0, 5)
  const more = malformed > shown.length ? [`  ... and ${count(malformed - shown.length)} more`] : []
  return ['', 'malformed records', ...shown.flatMap((problem) => hanging('  ', problem, width)), ...more]
}

function findingsOf({ findings }: DataReport, width: number): string[] {
  if (findings.length === 0) return ['nothing suspicious was found']
  return [
    'worth looking at',
    ...findings.flatMap(({ kind, count: found, places }) => [
      ...hanging('  ', `${kind}: ${plural(found, 'example')} ${findingKinds[kind]}`, width),
      ...hanging('    ', `${places.join(', ')}${found > places.length ? ', ...' : ''}`, width),
    ]),
  ]
}

/** How tokens are told apart. */
interface Marks {
  readonly label: readonly [string, string]
  readonly special: readonly [string, string]
}

const colours: Marks = { label: ['\u001b[1;32m', '\u001b[0m'], special: ['\u001b[33m', '\u001b[0m'] }
const plain: Marks = { label: ['[[', ']]'], special: ['', ''] }

/** Examples as the model sees them, what is learned marked: in colour, or between double brackets. */
export function previewLines(rows: readonly PreviewRow[], { colour }: { readonly colour: boolean }): string[] {
  const { label, special } = colour ? colours : plain
  return rows.flatMap(({ row, place, tokens }) => {
    const labels = tokens.filter((token) => token.label).length
    const text = runsOf(tokens)
      .map(({ learned, parts }) => {
        const inner = parts
          .map((part) => {
            const shown = printable(part.text)
            const [open, close] = learned && colour ? ['', ''] : special
            return part.special ? `${open}${shown}${close}` : shown
          })
          .join('')
        return learned ? `${label[0]}${inner}${label[1]}` : inner
      })
      .join('')
    return [
      `example ${count(row)}, ${place}: ${count(tokens.length)} tokens, ${count(labels)} of them learned (${colour ? 'green' : 'between [[ and ]]'})`,
      '',
      ...text.split('\n'),
      '',
    ]
  })
}

/** Tokens of which all are learned, or none. */
function runsOf(tokens: readonly PreviewToken[]): { readonly learned: boolean; readonly parts: PreviewToken[] }[] {
  const runs: { learned: boolean; parts: PreviewToken[] }[] = []
  for (const token of tokens) {
    const last = runs.at(-1)
    if (last !== undefined && last.learned === token.label) last.parts.push(token)
    else runs.push({ learned: token.label, parts: [token] })
  }
  return runs
}
