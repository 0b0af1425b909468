import { z } from 'zod'
import { count, option, path, positive, size, sizeMeta } from '../config/fields.ts'
import { optionSet, trainRules, trainSchema } from '../config/index.ts'
import { planMethods } from '../plan/methods.ts'
import type { PlanResult } from '../plan/result.ts'
import type { PlanConfig } from '../tasks/plan.ts'
import { planLines } from '../terminal/plan.ts'
import type { StatusOptions } from './compute.ts'
import { defineCommand } from './define.ts'

export type { PlannedVariant, PlanResult } from '../plan/result.ts'

const group = 'Plan'

const methods = z
  .union([z.literal('all'), z.array(z.enum([...planMethods, 'all'])).min(1)])
  .transform((value) => (value.includes('all') ? [...planMethods] : planMethods.filter((one) => value.includes(one))))

const schema = trainSchema.extend({
  train: trainSchema.shape.train.optional().meta({
    ...trainSchema.shape.train.meta(),
    description: 'Training data, tokenized as training does it: its lengths count then',
    unset: 'every example is as long as maxLength',
  }),
  outputDir: option(path.optional(), {
    group: 'Model and data',
    description: 'Not written; so that the file of a training run can be taken as it is',
    placeholder: 'DIR',
    unset: 'nothing',
  }),
  methods: option(methods.default([...planMethods]), {
    group,
    description: 'What is compared; the method of a configuration file does not count',
    placeholder: 'all|A,B',
    accepts: `all, or some of ${planMethods.join(', ')}`,
  }),
  ram: option(size.optional(), {
    group,
    description: 'Memory that a run may take, as --memory of train',
    ...sizeMeta,
    unset: 'what a run may take on this machine now',
  }),
  gpu: option(size.optional(), {
    group,
    description: 'Memory of a GPU, for which an estimate is made for PyTorch',
    ...sizeMeta,
    unset: 'this machine',
  }),
  examples: option(count.optional(), {
    group,
    description: 'Examples to assume where no data is given, each of maxLength tokens',
    unset: 'unknown: no time of a whole run is said',
  }),
  probe: option(z.boolean().default(true), {
    group,
    description: 'Measure for about ten seconds how fast this machine computes the programs of the model',
  }),
  stepSeconds: option(positive.optional(), {
    group,
    description: 'Seconds of an optimizer step, where they are known',
    unset: 'as measured',
  }),
  pricePerHour: option(positive.optional(), {
    group,
    description: 'What an hour of the machine costs',
    unset: 'that of the cheapest machine of the list with enough memory',
  }),
  prices: option(path.optional(), {
    group,
    description: 'List of machines with their prices, in JSON',
    placeholder: 'FILE',
    unset: 'examples/prices.json of the package',
  }),
  deploy: option(z.enum(['adapters', 'model']).optional(), {
    group,
    description: 'What is to be served: adapters beside one base, or one model',
    unset: 'not known',
  }),
  learns: option(z.enum(['task', 'tokens', 'architecture']).default('task'), {
    group,
    description: 'What the model has to learn: a task, new tokens of its vocabulary, or to be another architecture',
  }),
})

const options = optionSet<typeof schema, PlanConfig>(schema, {
  ...trainRules,
  check: (config, nameOf) => [
    ...(trainRules.check as (...args: [typeof config, typeof nameOf]) => string[])(config, nameOf),
    ...(config.ram !== undefined && config.gpu !== undefined
      ? [`${nameOf('gpu')}: has no meaning with ${nameOf('ram')}; give the memory of one machine`]
      : []),
    ...(config.examples !== undefined && config.train !== undefined
      ? [`${nameOf('examples')}: has no meaning with ${nameOf('train')}, whose examples are counted`]
      : []),
  ],
})

/** Options of `plan` as a user passes them: those of training, of which data and output folder may be left out, and more. */
export type PlanConfigInput = z.input<typeof options.schema>

/**
 * What training a model would take, method by method: trainable weights, memory, what is left on disk, time and cost; and which method to
 * take. Of the model only configuration and headers are read.
 *
 * @throws LowrankError `config`, `data`, `model`, `io`: as for `finetune`.
 */
export const plan: (config: PlanConfigInput, options?: StatusOptions) => Promise<PlanResult> = defineCommand({
  name: 'plan',
  summary: 'Say what training would take, method by method, and which to take',
  usage: '[CONFIG.yaml] [flags]',
  notes:
    'Takes the options of train. Of the model only config.json and the headers of its files are read; of one on the hub that the cache ' +
    'lacks, these alone are downloaded. Memory is that of the plan that train makes; for a GPU it is an estimate.',
  configFile: true,
  options,
  load: async () => (await import('../tasks/plan.ts')).runPlan,
  text: (result, { width }) => planLines(result, width),
})
