import { z } from 'zod'
import { option, path } from '../config/fields.ts'
import { optionSet } from '../config/index.ts'
import type { Comparison } from '../report/compare.ts'
import { figureRows } from '../runs/facts.ts'
import { table } from '../terminal/format.ts'
import { words } from './argument.ts'
import { defineCommand } from './define.ts'

export type { Comparison }

const page = 'compare.html'

const options = optionSet(
  z.strictObject({
    output: option(path.optional(), {
      group: 'Reports',
      description: 'Page that receives the curves of all runs, laid over one another',
      placeholder: 'FILE',
      unset: page,
    }),
  }),
)

/**
 * Compares runs; with `output`, writes a page that lays their curves over one another.
 *
 * @throws LowrankError `usage` for less than two runs, `data` where there is no run, `io` where the file cannot be written.
 */
export const compareRuns: (
  folders: readonly string[],
  options?: { readonly output?: string | undefined },
) => Promise<Comparison> = defineCommand({
  name: 'runs compare',
  summary: 'Compare runs: options that differ, figures, and a page with their curves laid over one another',
  usage: 'RUN RUN... [flags]',
  notes: 'RUN is the output folder of a training run.',
  argument: words('folders', 'RUN', { least: 2, accepts: 'a list of output folders' }),
  options,
  // A function writes no page unless it is asked for.
  defaults: { output: page },
  run: async ({ folders, output }) => (await import('../report/compare.ts')).compareRuns(folders, output),
  text: ({ names, runs, differences }, { config }) => {
    const rows = differences.map(({ what, values }) => [what, ...values])
    return [
      ...table(['', ...names], figureRows(runs)),
      '',
      ...(rows.length === 0 ? ['no option and no input differs'] : table(['differs', ...names], rows)),
      '',
      `curves in ${config.output}`,
    ]
  },
  json: (comparison, { config }) => ({ ...comparison, output: config.output }),
})
