import { metricValues } from '../metrics/index.ts'
import { smooth, smoothingWindow, thin, type Points } from './curves.ts'
import type { Run, StepColumns } from '../runs/read.ts'

/** How values of a chart are written: losses and norms, a count, bytes, or a share of 1. */
export type ValueFormat = 'number' | 'count' | 'bytes' | 'share'

interface Series extends Points {
  readonly label: string
  /** Index into the page's colours. */
  readonly color: number
  /** `pale`: drawn faintly, behind a smoothed curve; `dots`: with a mark at each point. */
  readonly style: 'line' | 'pale' | 'dots'
}

/** One plot, as data for the script of the page. */
export interface Chart {
  readonly id: string
  readonly title: string
  /** What the values are, in words. */
  readonly unit: string
  readonly format: ValueFormat
  readonly series: readonly Series[]
  /** Steps to mark, with what was there. */
  readonly marks: readonly { readonly x: number; readonly label: string }[]
  /** Takes the whole width of the page. */
  readonly wide: boolean
  /** What the curves show, for those who do not see them. */
  readonly summary: string
}

const TEXTS = {
  loss: { title: 'Loss', unit: 'nats a label token', format: 'number', wide: true },
  accuracy: { title: 'Token accuracy', unit: 'share of label tokens, evaluations', format: 'share', wide: false },
  share: { title: 'Metrics of answers', unit: 'share, evaluations', format: 'share', wide: false },
  points: { title: 'Metrics of answers, in points', unit: '0 to 100, evaluations', format: 'number', wide: false },
  number: { title: 'Own metric', unit: 'evaluations', format: 'number', wide: false },
  learningRate: { title: 'Learning rate', unit: '', format: 'number', wide: false },
  gradNorm: { title: 'Gradient norm', unit: 'before clipping', format: 'number', wide: false },
  tokensPerSecond: { title: 'Throughput', unit: 'tokens a second, padding included', format: 'count', wide: false },
  memory: { title: 'Memory', unit: 'resident set of the process', format: 'bytes', wide: false },
} as const

/** The charts of one run: each figure of the steps as it was, and smoothed where it varies; evaluations beside. */
export function chartsOf(run: Run): Chart[] {
  const { steps, evals } = run
  const marks = run.notices
    .filter(({ kind, step }) => kind !== 'warning' && step !== undefined)
    .slice(0, 100)
    .map(({ step, kind }) => ({ x: step!, label: kind }))
  const evalSteps = evals.map(({ step }) => step)
  const evalLoss = series('evaluation', 1, 'dots', thin(evalSteps, pick(evals, 'loss')))
  return [
    chart('loss', [...rawAndSmooth(steps, 'loss', 'training'), evalLoss], marks),
    chart('accuracy', [series('token accuracy', 1, 'dots', thin(evalSteps, pick(evals, 'tokenAccuracy')))]),
    ...scales.map((scale) => chart(scale, metricSeries(run, scale))),
    chart('gradNorm', rawAndSmooth(steps, 'gradNorm', 'gradient norm'), marks),
    chart('learningRate', [series('learning rate', 0, 'line', thin(steps.step, steps.learningRate))]),
    chart('tokensPerSecond', rawAndSmooth(steps, 'tokensPerSecond', 'tokens a second')),
    chart('memory', [series('memory', 0, 'line', thin(steps.step, steps.memory))]),
  ].filter((one) => one !== undefined)
}

/** The charts of several runs laid over one another: a colour a run, training curves smoothed, evaluations dotted. */
export function overlaidCharts(runs: readonly Run[], names: readonly string[]): Chart[] {
  const overlay = (key: Exclude<keyof StepColumns, 'step'>, smoothed: boolean): Series[] =>
    runs.map(({ steps }, index) => {
      const window = smoothed ? smoothingWindow(steps.step.length) : 0
      return series(
        names[index]!,
        index,
        'line',
        thin(steps.step, window > 1 ? smooth(steps[key], window) : steps[key]),
      )
    })
  const evaluated = (key: 'loss' | 'tokenAccuracy'): Series[] =>
    runs.map(({ evals }, index) => {
      const points = thin(
        evals.map(({ step }) => step),
        pick(evals, key),
      )
      return series(names[index]!, index, 'dots', points)
    })
  const titled = (one: Chart | undefined, title: string, id: string): Chart | undefined =>
    one === undefined ? undefined : { ...one, title, id }
  return [
    titled(chart('loss', overlay('loss', true)), 'Training loss, smoothed', 'loss'),
    titled(chart('loss', evaluated('loss')), 'Evaluation loss', 'evalLoss'),
    chart('accuracy', evaluated('tokenAccuracy')),
    ...Object.entries(metricValues).map(([key, { what, scale }]) => {
      const all = runs.map(({ evals }, index) => metricPoints(evals, key, { label: names[index]!, color: index }))
      return titled(chart(scale, all), what, key)
    }),
    chart('gradNorm', overlay('gradNorm', true)),
    chart('learningRate', overlay('learningRate', false)),
    chart('tokensPerSecond', overlay('tokensPerSecond', true)),
    chart('memory', overlay('memory', false)),
  ].filter((one) => one !== undefined)
}

const scales = ['share', 'points', 'number'] as const

/** The metrics of a scale, a curve each. */
function metricSeries({ evals }: Run, scale: (typeof scales)[number]): Series[] {
  return Object.entries(metricValues)
    .filter(([key, value]) => value.scale === scale && evals.some(({ metrics }) => metrics[key] !== undefined))
    .map(([key, { what }], color) => metricPoints(evals, key, { label: what, color }))
}

function metricPoints(
  evals: Run['evals'],
  key: string,
  { label, color }: { readonly label: string; readonly color: number },
): Series {
  const measured = evals.filter(({ metrics }) => metrics[key] !== undefined)
  const points = thin(
    measured.map(({ step }) => step),
    measured.map(({ metrics }) => metrics[key]!),
  )
  return series(label, color, 'dots', points)
}

function pick(evals: Run['evals'], key: 'loss' | 'tokenAccuracy'): number[] {
  return evals.map((one) => one[key])
}

function rawAndSmooth(steps: StepColumns, key: Exclude<keyof StepColumns, 'step'>, label: string): Series[] {
  const window = smoothingWindow(steps.step.length)
  const raw = thin(steps.step, steps[key])
  if (window < 2) return [series(label, 0, 'line', raw)]
  const smoothed = thin(steps.step, smooth(steps[key], window))
  return [series(label, 0, 'pale', raw), series(`smoothed over ${window} steps`, 0, 'line', smoothed)]
}

function series(label: string, color: number, style: Series['style'], points: Points): Series {
  return { label, color, style, ...points }
}

/** Nothing where no series has a value. */
function chart(id: keyof typeof TEXTS, all: readonly Series[], marks: Chart['marks'] = []): Chart | undefined {
  const some = all.filter(({ y }) => y.some((value) => value !== null))
  return some.length === 0
    ? undefined
    : { id, ...TEXTS[id], series: some, marks, summary: some.map(inWords).join('; ') }
}

function inWords({ label, x, y }: Series): string {
  const [first, last] = [y.findIndex((value) => value !== null), y.findLastIndex((value) => value !== null)]
  return `${label}: ${y[first]} at step ${x[first]}, ${y[last]} at step ${x[last]}`
}
