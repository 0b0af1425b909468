import { z } from 'zod'
import { count, option } from '../config/fields.ts'
import { methodNames, optionSet, type TrainConfig, trainRules, trainSchema } from '../config/index.ts'
import { comparisonTable } from '../jobs/comparison.ts'
import type { CompareConfig, CompareResult } from '../tasks/compare.ts'
import { table } from '../terminal/format.ts'
import type { StatusOptions } from './compute.ts'
import { defineCommand } from './define.ts'
import { experimentProblems, workers } from './experiment.ts'

export type { CompareResult } from '../tasks/compare.ts'
export type { CellFigures, ComparedCell } from '../jobs/comparison.ts'
export type { Difference } from '../jobs/noise.ts'

const group = 'Comparison'

const schema = trainSchema.extend({
  methods: option(z.array(z.enum(methodNames)).min(1).default(['full', 'lora', 'qlora']), {
    group,
    description: `Methods that are compared: ${methodNames.join(', ')}`,
    accepts: `a list of ${methodNames.join(', ')}`,
  }),
  ranks: option(z.array(count.max(65536)).min(1).max(16).default([8]), {
    group,
    description: 'Ranks at which adapters are trained; alpha follows, so that alpha / r stays',
  }),
  seeds: option(count.max(100).default(1), {
    group,
    description: 'Seeds that each cell is trained with, from seed on: their spread is the noise',
  }),
  learningRates: option(z.record(z.string(), z.number().positive().max(100)).optional(), {
    group,
    description: 'Learning rates of methods: full=5e-5,lora=2e-4',
    unset: 'learning-rate for methods of the kind it was set for; 5e-5 full, 2e-4 adapters',
  }),
  tuneLr: option(z.boolean().default(false), {
    group,
    description: 'Try a third and three times the learning rate of each method too, and take the best',
  }),
  workers,
})

const options = optionSet<typeof schema, CompareConfig>(schema, {
  check: (config, nameOf) => {
    const { learningRates = {}, methods = [] } = config
    const unknown = Object.keys(learningRates).filter((name) => !methods.some((method) => method === name))
    return [
      ...trainRules.check(config as Partial<TrainConfig>, nameOf as Parameters<typeof trainRules.check>[1]),
      ...experimentProblems(config, nameOf as (key: string) => string),
      ...unknown.map(
        (name) => `${nameOf('learningRates')}.${name}: not among ${nameOf('methods')} (${methods.join(', ')})`,
      ),
    ]
  },
  complete: (config) => trainRules.complete?.(config as Partial<TrainConfig>),
})

/** Options of `compare` as a user passes them: those of training, and what is compared. */
export type CompareConfigInput = z.input<typeof options.schema>

/**
 * Trains methods at several ranks on the same data in the same order, each in a process of its own, and compares losses, memory, time and
 * sizes. Called again after it was ended, it goes on: what is done in `outputDir/compare` is not done again.
 *
 * @throws LowrankError `config`, `data`, `model`: the input was refused, before anything is trained; `cancelled`.
 */
export const compare: (config: CompareConfigInput, options?: StatusOptions) => Promise<CompareResult> = defineCommand({
  name: 'compare',
  summary: 'Train methods and ranks on the same data, and compare loss, memory, time and size',
  usage: '[CONFIG.yaml] [flags]',
  notes:
    'Takes the options of train. Each method at each rank is trained in a process of its own; the same command goes on after a Ctrl-C or a ' +
    'kill. Jobs, runs, compare.json and compare.html are in output-dir/compare.',
  configFile: true,
  options,
  load: async () => (await import('../tasks/compare.ts')).compareTask(new URL('./job-process.js', import.meta.url)),
  text: ({ cells, reference, notes, page }) => {
    const { titles, rows } = comparisonTable(cells, reference)
    return [...table(titles, rows), '', ...notes, `curves in ${page}`]
  },
})
