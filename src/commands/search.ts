import { z } from 'zod'
import { count, option, positive } from '../config/fields.ts'
import { optionSet, type TrainConfig, trainRules, trainSchema } from '../config/index.ts'
import type { SearchConfig, SearchResult } from '../tasks/search.ts'
import { table } from '../terminal/format.ts'
import { number } from '../util/format.ts'
import type { StatusOptions } from './compute.ts'
import { defineCommand } from './define.ts'
import { experimentProblems, workers } from './experiment.ts'

export type { Choice, SearchResult, SearchStage } from '../tasks/search.ts'

const group = 'Search'
const rank = count.max(65536)

const schema = trainSchema.extend({
  startRank: option(rank.default(8), { group, description: 'Rank at which the other options are searched' }),
  maxRank: option(rank.default(64), { group, description: 'Highest rank that is tried' }),
  minGain: option(z.number().min(0).lt(1).default(0.01), {
    group,
    description: 'Share of the evaluation loss that twice the rank has to gain, beyond the noise',
  }),
  rates: option(z.array(z.number().positive().max(100)).min(1).max(16).optional(), {
    group,
    description: 'Learning rates that are tried',
    unset: 'a third, one and three times learning-rate, or of 2e-4 where that is not set',
  }),
  alphas: option(z.array(positive).min(1).max(8).default([1, 2]), {
    group,
    description: 'Alphas that are tried, as multiples of the rank',
  }),
  targets: option(
    z
      .array(z.enum(['config', 'all-linear']))
      .min(1)
      .default(['config', 'all-linear']),
    {
      group,
      description: 'Modules that are tried: config (those of target-modules), all-linear',
      accepts: 'a list of config and all-linear',
    },
  ),
  workers,
})

const options = optionSet<typeof schema, SearchConfig>(schema, {
  check: (config, nameOf) => {
    const { method, startRank = 8, maxRank = 64 } = config
    return [
      ...trainRules.check(config as Partial<TrainConfig>, nameOf as Parameters<typeof trainRules.check>[1]),
      ...experimentProblems(config, nameOf as (key: string) => string),
      ...(method === 'full'
        ? [`${nameOf('method')}: full has neither rank nor alpha to search for; choose lora or qlora`]
        : []),
      ...(startRank > maxRank
        ? [`${nameOf('startRank')}: ${startRank} is above ${nameOf('maxRank')}, ${maxRank}`]
        : []),
    ]
  },
  complete: (config) => trainRules.complete?.(config as Partial<TrainConfig>),
})

/** Options of `search` as a user passes them: those of training, and what is searched. */
export type SearchConfigInput = z.input<typeof options.schema>

/**
 * Searches learning rate, modules and alpha of an adapter at a low rank, then doubles the rank until that gains no more. Called again after
 * it was ended, it goes on: what is done in `outputDir/search` is not done again.
 *
 * @throws LowrankError `config`, `data`, `model`, `memory`: the input was refused, before anything is trained; `cancelled`.
 */
export const search: (config: SearchConfigInput, options?: StatusOptions) => Promise<SearchResult> = defineCommand({
  name: 'search',
  summary: 'Search rank, learning rate, modules and alpha of an adapter, by trials of few steps first',
  usage: '[CONFIG.yaml] [flags]',
  notes:
    'Takes the options of train. Trials take a ninth of the steps first; the better third goes on. Then the rank doubles until that gains no ' +
    'more than min-gain and chance. The same command goes on after a Ctrl-C or a kill. All is in output-dir/search.',
  configFile: true,
  options,
  load: async () => (await import('../tasks/search.ts')).searchTask(new URL('./job-process.js', import.meta.url)),
  text: ({ stages, best, notes, page }) => [
    ...stages.flatMap(({ title, titles, rows }) => [title, ...table(titles, rows), '']),
    ...notes,
    `best: r ${best.r}, loraAlpha ${best.loraAlpha}, learningRate ${best.learningRate}, targetModules ` +
      `${[best.targetModules].flat().join(',')}: evaluation loss ${number(best.evalLoss)}, in ${best.run}`,
    `curves in ${page}`,
  ],
})
