import { defaultOf, optionsOf, trainSchema } from '../config/index.ts'
import type { JsonObject } from '../formats/json.ts'
import { metricText, metricValues } from '../metrics/index.ts'
import { count, duration, formatSize, number, percent } from '../util/format.ts'
import type { Run } from './read.ts'
import type { RecordedData, RecordedPlan } from './recorded.ts'

/** A name with its value, as text. */
export type Fact = readonly [name: string, value: string]

/** Options of a run: those that were chosen, and those that are as they are by default. */
export function configFacts(config: JsonObject): {
  readonly chosen: readonly Fact[]
  readonly others: readonly Fact[]
} {
  const options = optionsOf(trainSchema)
  const names = new Set(options.map(({ key }) => key))
  // Of another version of Lowrank.
  const foreign = Object.keys(config).filter((key) => !names.has(key))
  const chosen: Fact[] = foreign.map((key) => [key, optionText(config[key])])
  const others: Fact[] = []
  for (const { key, unset } of options) {
    const value = config[key]
    const standard: unknown = defaultOf(key)
    // Undecided by the user, and decided so by the run.
    const implied = standard === undefined && (value === undefined || value === false || value === 'no')
    const isDefault = implied || JSON.stringify(value) === JSON.stringify(standard)
    if (!isDefault) chosen.push([key, optionText(value)])
    else if (value !== undefined || unset !== undefined)
      others.push([key, value === undefined ? unset! : optionText(value)])
  }
  return { chosen, others }
}

/** A value as a report shows it. */
export function optionText(value: unknown): string {
  if (Array.isArray(value)) return value.length === 0 ? 'none' : value.map(optionText).join(', ')
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? 'unset')
}

/** A figure of a run, with where or of what it is. */
interface Figure {
  readonly name: string
  readonly value: string
  readonly note?: string | undefined
}

/** The figures of a run; what is not known is left out. */
export function figureFacts({ figures }: Pick<Run, 'figures'>): Figure[] {
  const { steps, plannedSteps, trainLoss, best, lastEval, seconds, tokensPerSecond, peakMemory } = figures
  const all: (Omit<Figure, 'value'> & { readonly value: string | undefined })[] = [
    {
      name: 'Steps',
      value: count(steps),
      note: plannedSteps !== undefined && plannedSteps !== steps ? `of ${count(plannedSteps)}` : undefined,
    },
    { name: 'Training loss', value: known(trainLoss, number), note: 'mean' },
    bestFact(best),
    { name: 'Last evaluation loss', value: lastEval && number(lastEval.loss) },
    { name: 'Last token accuracy', value: lastEval && percent(lastEval.tokenAccuracy) },
    ...Object.entries(lastEval?.metrics ?? {}).map(([key, value]) => ({
      name: `Last ${nameOf(key)}`,
      value: metricText(key, value),
    })),
    { name: 'Time', value: known(seconds, duration) },
    { name: 'Throughput', value: known(tokensPerSecond, (rate) => count(Math.round(rate))), note: 'tokens/s' },
    { name: 'Peak memory', value: known(peakMemory, formatSize) },
  ]
  return all.filter((figure): figure is Figure => figure.value !== undefined)
}

function bestFact(best: Run['figures']['best']): Omit<Figure, 'value'> & { readonly value: string | undefined } {
  const note = best && `at step ${count(best.step)}`
  if (best?.metric === undefined) return { name: 'Best evaluation loss', value: best && number(best.loss), note }
  const { name, value } = best.metric
  return { name: `Best ${nameOf(name)}`, value: metricText(name, value), note }
}

function nameOf(key: string): string {
  return metricValues[key]?.what ?? key
}

/** A row a figure, a column a run. */
export function figureRows(runs: readonly Pick<Run, 'figures' | 'status'>[]): readonly (readonly string[])[] {
  const columns = runs.map((run) => {
    const facts = figureFacts(run).map(
      ({ name, value, note }) => [name, note === undefined ? value : `${value} ${note}`] as const,
    )
    return new Map([['Status', run.status], ...facts])
  })
  const names = new Set(columns.flatMap((column) => [...column.keys()]))
  return [...names].map((name) => [name, ...columns.map((column) => column.get(name) ?? '')])
}

function known(value: number | undefined, show: (value: number) => string): string | undefined {
  return value === undefined ? undefined : show(value)
}

/** What the data became, a table with a row a file. */
export function dataRows({ data }: Run): readonly (readonly string[])[] {
  const row = (name: string, summary: RecordedData['train'] | undefined): string[][] => {
    if (summary === undefined) return []
    const { path, examples, tokens, labelTokens, truncated, dropped, skippedLines } = summary
    const cells = [examples, tokens, labelTokens, truncated, dropped, skippedLines].map((value) => known(value, count))
    return [[name, ...cells.map((cell) => cell ?? ''), path]]
  }
  return [...row('training', data?.train), ...row('validation', data?.valid)]
}

/** What products with frozen weights are computed in, and why. */
export function productsText({
  matmulPrecision,
  products,
}: Pick<RecordedPlan, 'matmulPrecision' | 'products'>): string {
  const numbers = matmulPrecision === 'high' ? 'in slices of 8 bits' : 'in f32'
  return products === undefined ? numbers : `${numbers}: ${products}`
}

/** How the run was planned: model, base, memory. */
export function planFacts({ plan }: Run): Fact[] {
  if (plan === undefined) return []
  const { expected, bound, items } = plan.memory
  const parts = items.toSorted((a, b) => b.bytes - a.bytes)
  return [
    ['Architecture', plan.modelType],
    [
      'Parameters',
      `${count(plan.parameters)}, ${count(plan.trainableParameters)} trained (${percent(plan.trainableParameters / plan.parameters, 2)})`,
    ],
    ['Base', plan.quantization ?? (plan.expandWeights ? 'expanded to f32' : 'as stored')],
    ['Products', productsText(plan)],
    ['Blocks', plan.streamed === undefined ? 'in memory' : 'on disk'],
    ['Activations', plan.activations === 'keep' ? 'kept' : 'recomputed'],
    ['Threads', count(plan.threads)],
    ['Memory expected', `${formatSize(expected)}${bound === undefined ? '' : ` of ${formatSize(bound)}`}`],
    ...parts.map(({ what, bytes: size }): Fact => [`… ${what}`, formatSize(size)]),
  ]
}
