import { optionsOf, trainSchema } from '../config.ts'
import type { JsonObject } from '../formats/json.ts'
import { bytes, count, duration, number, percent } from '../util/format.ts'
import type { Run } from './read.ts'

/** A name with its value, as text. */
export type Fact = readonly [name: string, value: string]

/** Options of a run: those that were chosen, and those that are as they are by default. */
export function configFacts(config: JsonObject): {
  readonly chosen: readonly Fact[]
  readonly others: readonly Fact[]
} {
  const options = optionsOf(trainSchema)
  const known = new Set(options.map(({ key }) => key))
  // Of another version of Lowrank.
  const foreign = Object.keys(config).filter((key) => !known.has(key))
  const chosen: Fact[] = foreign.map((key) => [key, optionText(config[key])])
  const others: Fact[] = []
  for (const { key, default: standard, unset } of options) {
    const value = config[key]
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
  if (Array.isArray(value)) return value.map(optionText).join(', ')
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? 'unset')
}

/** The figures of a run; what is not known is left out. */
export function figureFacts({ figures }: Pick<Run, 'figures'>): Fact[] {
  const { steps, plannedSteps, trainLoss, best, lastEval, seconds, tokensPerSecond, peakMemory } = figures
  const of = plannedSteps !== undefined && plannedSteps !== steps ? ` of ${count(plannedSteps)}` : ''
  const facts: [string, string | undefined][] = [
    ['Steps', `${count(steps)}${of}`],
    ['Training loss', trainLoss === undefined ? undefined : `${number(trainLoss)}, mean`],
    ['Best evaluation loss', best === undefined ? undefined : `${number(best.loss)} at step ${count(best.step)}`],
    [
      'Last evaluation',
      lastEval === undefined ? undefined : `${number(lastEval.loss)}, accuracy ${percent(lastEval.tokenAccuracy)}`,
    ],
    ['Time', seconds === undefined ? undefined : duration(seconds)],
    ['Throughput', tokensPerSecond === undefined ? undefined : `${count(Math.round(tokensPerSecond))} tokens/s`],
    ['Peak memory', peakMemory === undefined ? undefined : bytes(peakMemory)],
  ]
  return facts.filter((fact): fact is [string, string] => fact[1] !== undefined)
}

/** What the data became, a table with a row a file. */
export function dataRows({ data }: Run): readonly (readonly string[])[] {
  const row = (name: string, summary: Record<string, unknown> | undefined): string[][] =>
    summary === undefined || summary === null
      ? []
      : [
          [
            name,
            ...(['examples', 'tokens', 'labelTokens', 'truncated', 'dropped', 'skippedLines'] as const).map((key) =>
              typeof summary[key] === 'number' ? count(summary[key]) : '',
            ),
            optionText(summary['path'] ?? ''),
          ],
        ]
  return [...row('training', { ...data?.train }), ...row('validation', data?.valid && { ...data.valid })]
}

/** How the run was planned: model, base, memory. */
export function planFacts({ plan }: Run): Fact[] {
  if (plan === undefined) return []
  const { expected, bound, items } = plan.memory
  const parts = Array.isArray(items) ? items.toSorted((a, b) => b.bytes - a.bytes) : []
  return [
    ['Architecture', plan.modelType],
    [
      'Parameters',
      `${count(plan.parameters)}, ${count(plan.trainableParameters)} trained (${percent(plan.trainableParameters / plan.parameters, 2)})`,
    ],
    ['Base', plan.quantization ?? (plan.expandWeights ? 'expanded to f32' : 'as stored')],
    ['Blocks', plan.streamed === undefined || plan.streamed === null ? 'in memory' : 'on disk'],
    ['Activations', plan.activations === 'keep' ? 'kept' : 'recomputed'],
    ['Threads', count(plan.threads)],
    ['Memory expected', `${bytes(expected)}${bound === undefined || bound === null ? '' : ` of ${bytes(bound)}`}`],
    ...parts.map(({ what, bytes: size }): Fact => [`… ${what}`, bytes(size)]),
  ]
}
