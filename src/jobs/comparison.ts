import type { MethodName } from '../config/index.ts'
import { count, duration, formatSize, number, percent } from '../util/format.ts'
import type { MeasureResult, TrainResult } from './job.ts'
import { deviation, type Difference, differenceOf, mean } from './noise.ts'

/** One training of a comparison. */
export interface CellRun {
  readonly seed: number
  /** Output folder of its run. */
  readonly folder: string
  readonly result: TrainResult
  readonly served: MeasureResult | undefined
}

/** A method at a rank, trained with each seed; or why it was not. */
export interface CellInput {
  readonly method: MethodName
  /** Undefined for full fine-tuning. */
  readonly r: number | undefined
  readonly learningRate: number
  readonly runs: readonly CellRun[]
  readonly problem: string | undefined
}

/** A row of a comparison: means over the seeds, of memory and sizes the highest. Losses in nats a label token, memory in bytes. */
export interface ComparedCell {
  readonly name: string
  readonly method: MethodName
  readonly r: number | undefined
  readonly learningRate: number
  /** Why there are no figures, or not of all seeds. */
  readonly problem: string | undefined
  readonly folders: readonly string[]
  readonly figures: CellFigures | undefined
}

export interface CellFigures {
  readonly seeds: readonly number[]
  readonly evalLoss: number
  /** Standard deviation over the seeds; undefined with one. */
  readonly evalLossSpread: number | undefined
  /** Of the weights as they were written: those of a whole model are rounded to the type of the base. */
  readonly savedLoss: number | undefined
  readonly tokenAccuracy: number
  readonly metrics: Readonly<Record<string, number>>
  /** How far its evaluation loss is above that of full fine-tuning, as a share of it, and the standard deviation over the seeds. */
  readonly gap: { readonly share: number; readonly spread: number | undefined } | undefined
  /** What it is worse than full fine-tuning, or than the best where there is none, and whether that is more than chance. */
  readonly difference: Difference | undefined
  readonly peakMemory: number
  readonly seconds: number
  readonly tokensPerSecond: number | undefined
  readonly artifactBytes: number
  /** Highest resident set of a process that answers a prompt with the result. */
  readonly servedMemory: number | undefined
}

/** The rows of a comparison, and what its cells are compared with: full fine-tuning, or the one with the lowest loss. */
export function compareCells(inputs: readonly CellInput[]): {
  readonly cells: readonly ComparedCell[]
  readonly reference: string | undefined
} {
  const trained = inputs.filter(({ runs }) => runs.length > 0)
  const full = trained.find(({ method }) => method === 'full')
  const best = trained.toSorted((a, b) => lossOf(a) - lossOf(b))[0]
  const reference = full ?? best
  const cells = inputs.map((input) => ({
    name: nameOf(input),
    method: input.method,
    r: input.r,
    learningRate: input.learningRate,
    problem: input.problem,
    folders: input.runs.map(({ folder }) => folder),
    figures: input.runs.length === 0 ? undefined : figuresOf(input, { full, reference }),
  }))
  return { cells, reference: reference && nameOf(reference) }
}

function nameOf({ method, r }: Pick<CellInput, 'method' | 'r'>): string {
  return r === undefined ? method : `${method} r=${r}`
}

function lossOf({ runs }: CellInput): number {
  return mean(runs.map(({ result }) => result.evalLoss))
}

function figuresOf(
  cell: CellInput,
  { full, reference }: { readonly full: CellInput | undefined; readonly reference: CellInput | undefined },
): CellFigures {
  const { runs } = cell
  const of = (key: 'evalLoss' | 'tokenAccuracy' | 'peakMemory' | 'seconds' | 'artifactBytes'): number[] =>
    runs.map(({ result }) => result[key])
  const rates = runs.flatMap(({ result }) => result.tokensPerSecond ?? [])
  const served = runs.flatMap((run) => run.served?.servedMemory ?? [])
  const saved = runs.flatMap((run) => (run.served === undefined ? [] : savedLossOf(run.served)))
  const names = Object.keys(runs[0]!.result.metrics)
  const gaps = full === undefined || full === cell ? [] : gapsOf(cell, full)
  return {
    seeds: runs.map(({ seed }) => seed),
    evalLoss: mean(of('evalLoss')),
    evalLossSpread: runs.length > 1 ? deviation(of('evalLoss')) : undefined,
    savedLoss: saved.length === 0 ? undefined : mean(saved),
    tokenAccuracy: mean(of('tokenAccuracy')),
    metrics: Object.fromEntries(
      names.map((name) => [name, mean(runs.map(({ result }) => result.metrics[name] ?? Number.NaN))]),
    ),
    gap: gaps.length === 0 ? undefined : { share: mean(gaps), spread: gaps.length > 1 ? deviation(gaps) : undefined },
    difference:
      reference === undefined || reference === cell
        ? undefined
        : differenceOf(seedResults(cell), seedResults(reference)),
    peakMemory: Math.max(...of('peakMemory')),
    seconds: mean(of('seconds')),
    tokensPerSecond: rates.length === 0 ? undefined : mean(rates),
    artifactBytes: Math.max(...of('artifactBytes')),
    servedMemory: served.length === 0 ? undefined : Math.max(...served),
  }
}

function savedLossOf({ exampleLosses }: MeasureResult): number {
  const sum = (i: 0 | 1): number => exampleLosses.reduce((total, one) => total + one[i], 0)
  return sum(0) / sum(1)
}

function gapsOf({ runs }: CellInput, full: CellInput): number[] {
  return runs.flatMap(({ seed, result }) => {
    const other = full.runs.find((run) => run.seed === seed)?.result.evalLoss
    return other === undefined ? [] : [result.evalLoss / other - 1]
  })
}

function seedResults({ runs }: CellInput): Parameters<typeof differenceOf>[0] {
  return runs.map(({ seed, result, served }) => ({
    seed,
    evalLoss: result.evalLoss,
    exampleLosses: served?.exampleLosses,
  }))
}

/** A table in words: titles, and a row a cell. */
export interface TextTable {
  readonly titles: readonly string[]
  readonly rows: readonly (readonly string[])[]
}

/** The table of a comparison; columns that no cell has a value in are left out. */
export function comparisonTable(cells: readonly ComparedCell[], reference: string | undefined): TextTable {
  const metrics = [...new Set(cells.flatMap(({ figures }) => Object.keys(figures?.metrics ?? {})))]
  const withSpread = (text: string, spread: string | undefined): string =>
    spread === undefined ? text : `${text} ± ${spread}`
  const columns: Record<string, (cell: ComparedCell, figures: CellFigures) => string> = {
    'learning rate': ({ learningRate }) => rateText(learningRate),
    'eval loss': (_, { evalLoss, evalLossSpread: spread }) =>
      withSpread(number(evalLoss), spread === undefined ? undefined : number(spread)),
    'as saved': (_, { savedLoss }) => (savedLoss === undefined ? '' : number(savedLoss)),
    accuracy: (_, { tokenAccuracy }) => percent(tokenAccuracy),
    ...Object.fromEntries(
      metrics.map((name) => [name, (_: ComparedCell, figures: CellFigures) => number(figures.metrics[name] ?? NaN)]),
    ),
    'gap to full': (_, { gap }) =>
      gap === undefined
        ? ''
        : withSpread(
            `${gap.share > 0 ? '+' : ''}${percent(gap.share)}`,
            gap.spread === undefined ? undefined : percent(gap.spread),
          ),
    [`against ${reference ?? ''}`]: ({ name }, { difference }) =>
      name === reference ? '' : difference === undefined ? 'noise unknown' : verdict(difference),
    'peak memory': (_, { peakMemory }) => formatSize(peakMemory),
    time: (_, { seconds }) => duration(seconds),
    'tokens/s': (_, { tokensPerSecond: rate }) => (rate === undefined ? '' : count(Math.round(rate))),
    artifact: (_, { artifactBytes }) => formatSize(artifactBytes),
    served: (_, { servedMemory }) => (servedMemory === undefined ? '' : formatSize(servedMemory)),
    note: ({ problem }) => problem ?? '',
  }
  const table = cells.map((cell) =>
    Object.entries(columns).map(([title, text]) =>
      cell.figures === undefined ? (title === 'note' ? (cell.problem ?? '') : '') : text(cell, cell.figures),
    ),
  )
  const used = Object.keys(columns).flatMap((_, i) => (table.some((row) => row[i] !== '') ? [i] : []))
  return {
    titles: ['method', ...used.map((i) => Object.keys(columns)[i]!)],
    rows: table.map((row, i) => [cells[i]!.name, ...used.map((column) => row[column]!)]),
  }
}

/** `worse`, or that the difference may be chance. */
export function verdict({ loss, noise }: Difference): string {
  if (Math.abs(loss) <= noise) return 'within noise'
  return loss > 0 ? 'worse' : 'better'
}

/** `2e-4`. */
export function rateText(rate: number): string {
  return Number(rate.toPrecision(3)).toExponential()
}
