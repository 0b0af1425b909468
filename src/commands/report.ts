import { z } from 'zod'
import { option, path } from '../config/fields.ts'
import { optionSet } from '../config/index.ts'
import { word } from './argument.ts'
import { defineCommand } from './define.ts'

const options = optionSet(
  z.strictObject({
    output: option(path.optional(), {
      group: 'Reports',
      description: 'File that receives the report',
      placeholder: 'FILE',
      unset: 'report.html in the folder of the run',
    }),
  }),
)

/**
 * Writes the report of a run, `report.html` in its folder by default, from its `run.json` and `metrics.jsonl` alone;
 * returns the path.
 *
 * @throws LowrankError `data` where there is no run, `io` where the file cannot be written.
 */
export const writeReport: (folder: string, options?: { readonly output?: string | undefined }) => Promise<string> =
  defineCommand({
    name: 'report',
    summary: 'Write the report of a run again, from its run.json and metrics.jsonl',
    usage: 'RUN [flags]',
    notes:
      'RUN is the output folder of a training run, which may still be running. A run writes its report itself when it ends.',
    argument: word('folder', 'RUN'),
    options,
    run: async ({ folder, output }) => (await import('../report/report.ts')).writeReport(folder, output),
    text: (written) => [`report in ${written}`],
    json: (output) => ({ output }),
  })
