import { productsText } from '../runs/facts.ts'
import { type FindingKind, findingKinds } from '../text/findings.ts'
import { metricText, metricValues } from '../metrics/index.ts'
import type { BestEvaluation, DatasetSummary, EventOf, TrainEvent } from '../train/events.ts'
import { columns, printable, wrap } from './format.ts'
import { count, duration, formatSize, number, percent, plural } from '../util/format.ts'

/** The lines an event adds to the log of a run. `step` (for the bar), `sample` and `done` (for the end) add none. */
export function eventLines(event: TrainEvent): string[] {
  switch (event.type) {
    case 'status':
      return [event.message]
    case 'warning':
      return [`warning: ${event.message}`]
    case 'data':
      return [
        dataLine('train', event.train),
        ...(event.valid ? [dataLine('valid', event.valid)] : []),
        ...[event.train, ...(event.valid ? [event.valid] : [])].flatMap(findingLines),
      ]
    case 'plan':
      return planLines(event)
    case 'log':
      return [
        `step ${event.step}  epoch ${event.epoch.toFixed(2)}  loss ${number(event.loss)}  ` +
          `lr ${event.learningRate.toExponential(2)}  grad norm ${number(event.gradNorm)}`,
      ]
    case 'eval':
      return [
        `step ${event.step}  eval loss ${number(event.loss)}  perplexity ${number(event.perplexity)}  ` +
          `accuracy ${percent(event.tokenAccuracy)}  ${metricsText(event.metrics)}${duration(event.seconds)}${event.best ? '  (best so far)' : ''}`,
      ]
    case 'spike':
      return spikeLines(event)
    case 'overfitting':
      return [
        `step ${event.step}  the eval loss rises (${number(event.best.evalLoss)} at step ${event.best.step}, now ` +
          `${number(event.evalLoss)}) while the train loss falls (${number(event.best.trainLoss)}, now ` +
          `${number(event.trainLoss)}): the model is memorizing the examples`,
        `hint: ${event.remedy}`,
      ]
    case 'resume':
      return [`resuming after step ${event.step}, from ${event.path}`]
    case 'save':
      return [`step ${event.step}  saved ${event.path}`]
    case 'step':
    case 'sample':
    case 'done':
      return []
  }
}

/** `ROUGE-L 31.4 %  `, and the others, where there are some. */
function metricsText(metrics: Readonly<Record<string, number>> = {}): string {
  return Object.entries(metrics)
    .map(([key, value]) => `${metricValues[key]?.what ?? key} ${metricText(key, value)}  `)
    .join('')
}

const spikeKinds = { loss: 'loss', gradNorm: 'gradient norm', nan: 'loss or gradient' } as const
const spikeActions = {
  apply: 'the update was applied',
  skip: 'the update was skipped',
  stop: 'the run ends before the update',
} as const

function spikeLines({ step, kind, value, expected, lines, action, remedy }: EventOf<'spike'>): string[] {
  const shown = lines.slice(0, 20).join(', ')
  const more = lines.length > 20 ? ` and ${count(lines.length - 20)} more` : ''
  const range =
    expected === undefined
      ? 'not a number'
      : `${number(value)}, expected at most ${number(expected.limit)} (median ${number(expected.median)})`
  return [
    `step ${step}  spike: ${spikeKinds[kind]} ${range}; ${spikeActions[action]}`,
    `its examples: ${lines.length === 1 ? 'line' : 'lines'} ${shown}${more} of the training data`,
    // Where the run ends, the error says the rest.
    ...(action === 'stop' ? [] : [`hint: ${remedy}`]),
  ]
}

/** One step as text: `loss 1.2345  812 tokens/s  1.20 GB  3m 05s left`. */
export function stepText(event: EventOf<'step'>): string {
  return (
    `loss ${number(event.loss)}  ${count(Math.round(event.tokensPerSecond))} tokens/s  ${formatSize(event.memory)}  ` +
    `${duration(event.secondsLeft)} left`
  )
}

function bestText({ loss, metric }: BestEvaluation): string {
  if (metric === undefined) return `best eval loss ${number(loss)}`
  return `best eval ${metricValues[metric.name]?.what ?? metric.name} ${metricText(metric.name, metric.value)}`
}

/** The summary of a finished run, and the next command to try. */
export function doneLines(event: EventOf<'done'>, next: string | undefined): string[] {
  const best = event.best === undefined ? '' : `, ${bestText(event.best)} at step ${event.best.step}`
  return [
    `${plural(event.steps, 'step')} in ${duration(event.seconds)}: train loss ${number(event.trainLoss)}${best}, ` +
      `peak memory ${formatSize(event.peakMemory)}`,
    `computed ${plural(event.tokens, 'token')}: ${count(event.labelTokens)} labels, ${percent(event.paddingShare)} padding`,
    ...(event.stoppedEarly === undefined
      ? []
      : [`stopped early at step ${event.stoppedEarly.step}: ${event.stoppedEarly.reason}`]),
    `saved in ${event.outputDir}, with its curves in report.html`,
    ...(next === undefined ? [] : [`next: ${next}`]),
  ]
}

/** Completions before and after training, side by side under their prompt. */
export function sampleLines(samples: readonly EventOf<'sample'>[], width: number): string[] {
  const before = samples.filter((sample) => sample.when === 'before')
  const after = samples.filter((sample) => sample.when === 'after')
  return (after.length > 0 ? after : before).flatMap((sample, index) => {
    const completions = [before[index], after[index]].map((one) => one?.completion.trim() ?? '(none)')
    return [
      '',
      `sample ${index + 1}`,
      ...labelled('prompt', sample.prompt, width),
      ...labelled('expected', sample.expected, width),
      ...columns(['before', 'after'], completions, width - 2).map((line) => `  ${line}`),
    ]
  })
}

function labelled(label: string, text: string, width: number): string[] {
  const indent = ' '.repeat(12)
  const lines = wrap(printable(text.trim()), width - indent.length)
  return lines.map((line, index) => `${index === 0 ? `  ${label}`.padEnd(indent.length) : indent}${line}`)
}

/** What became of a file of examples. */
export function dataLine(label: string, data: DatasetSummary): string {
  const losses = [
    data.truncated > 0 ? `${count(data.truncated)} longer than maxLength, cut with their EOS` : '',
    data.dropped > 0 ? `${count(data.dropped)} dropped, no label being left` : '',
    data.skippedLines > 0 ? `${plural(data.skippedLines, 'malformed line')} passed over` : '',
  ].filter((text) => text !== '')
  return (
    `${label}: ${count(data.examples)} examples, ${count(data.tokens)} tokens, ${count(data.labelTokens)} of them labels` +
    `${losses.length > 0 ? `; ${losses.join(', ')}` : ''} (${data.path})`
  )
}

/** Findings that the line of the data does not count already. */
const counted: readonly FindingKind[] = ['cut', 'nothingLearned']

/** What is worth looking at in a dataset, a line each. */
export function findingLines({ findings }: DatasetSummary): string[] {
  return findings
    .filter(({ kind }) => !counted.includes(kind))
    .map(({ kind, count: found, places }) => {
      const more = found > places.length ? ', ...' : ''
      return `warning: ${plural(found, 'example')} ${findingKinds[kind]}: ${places.join(', ')}${more}`
    })
}

function planLines(event: EventOf<'plan'>): string[] {
  const { activations, quantization, expandWeights, streamed, headRows } = event
  const { expected, bound, items, smaller } = event.memory
  const share = percent(event.trainableParameters / event.parameters, 2)
  const parts = items.toSorted((a, b) => b.bytes - a.bytes).map((item) => `${item.what} ${formatSize(item.bytes)}`)
  return [
    `${event.modelType}: ${count(event.parameters)} parameters, ${count(event.trainableParameters)} trained (${share}); ` +
      `${plural(event.steps, 'step')}; ${plural(event.threads, 'thread')}`,
    `base ${quantization ?? (expandWeights ? 'expanded to f32' : 'as stored')}, ` +
      (streamed === undefined
        ? 'in memory; '
        : `blocks on disk, each read for ${streamed.group === 1 ? 'one micro-batch' : `${count(streamed.group)} micro-batches`} at a time; `) +
      `activations ${activations === 'keep' ? 'kept' : 'recomputed'}; ${headRows} rows at a time through the head`,
    `products with frozen weights ${productsText(event)}`,
    `memory: ${formatSize(expected)} expected${bound === undefined ? '' : ` of ${formatSize(bound)}`} (${parts.join(', ')})`,
    ...(smaller.length === 0 ? [] : [`less memory with ${smaller.join('; ')}`]),
  ]
}
