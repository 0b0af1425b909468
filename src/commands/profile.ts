import type { z } from 'zod'
import { count, option, path } from '../config/fields.ts'
import { optionSet, trainRules, trainSchema } from '../config/index.ts'
import type { ProfileConfig, ProfileResult } from '../tasks/profile.ts'
import { table } from '../terminal/format.ts'
import { count as counted, percent } from '../util/format.ts'
import type { StatusOptions } from './compute.ts'
import { defineCommand } from './define.ts'

export type { ProfiledProgram, ProfilePart, ProfileResult } from '../tasks/profile.ts'

const schema = trainSchema.extend({
  outputDir: option(path.optional(), {
    group: 'Model and data',
    description: 'Not written; so that the file of a training run can be taken as it is',
    placeholder: 'DIR',
    unset: 'nothing',
  }),
  profileSteps: option(count.default(3), {
    group: 'Profile',
    description: 'Steps that are measured, after one to warm up',
  }),
})

const options = optionSet<typeof schema, ProfileConfig>(schema, trainRules)

/** Options of `profile` as a user passes them: those of training, of which the output folder may be left out. */
export type ProfileConfigInput = z.input<typeof options.schema>

/**
 * Takes some steps of a training run without writing anything, and says where their time goes, beside what matrix products of this machine
 * allow.
 *
 * @throws LowrankError `config`, `data`, `model`, `memory`: as for `finetune`.
 */
export const profile: (config: ProfileConfigInput, options?: StatusOptions) => Promise<ProfileResult> = defineCommand({
  name: 'profile',
  summary: 'Take some steps of a training run, and say where their time goes',
  usage: '[CONFIG.yaml] [flags]',
  notes:
    'Takes the options of train. Nothing is written. Steps are some percent slower than without, since each node of each program is ' +
    'recorded. The limit is the best rate of matrix products in 32 bits that this machine reaches with as many threads.',
  configFile: true,
  options,
  load: async () => (await import('../tasks/profile.ts')).runProfile,
  text: profileLines,
})

function profileLines(result: ProfileResult): string[] {
  const { seconds, tokens, parts, products, programs, threads, activations, steps } = result
  const row = (what: string, own: number): string[] => [what, milliseconds(own), percent(own / seconds)]
  const giga = (rate: number): string => `${(rate / 1e9).toFixed(0)} GFLOP/s`
  const made = ['program', 'runs', 'ms a step', 'share', 'products']
  return [
    `${seconds.toFixed(3)} s a step, mean of ${steps}: ${counted(tokens)} positions, ${activations}, ${threads} threads`,
    '',
    ...table(
      ['part of a step', 'ms', 'share'],
      parts.map(({ what, seconds: own }) => row(what, own)),
    ),
    '',
    ...table(
      made,
      programs.map(({ name, runs, seconds: own, productSeconds }) => [
        name,
        String(Math.round(runs)),
        milliseconds(own),
        percent(own / seconds),
        percent(productSeconds / own),
      ]),
    ),
    '',
    `${(products.flops / 1e9).toFixed(0)} GFLOP of products a step at ${giga(products.rate)}; the limit here is ${giga(products.limit)}, at which they would take ` +
      `${milliseconds(products.flops / products.limit)} ms, ${percent(products.share)} of the step`,
  ]
}

function milliseconds(seconds: number): string {
  return (1000 * seconds).toFixed(1)
}
