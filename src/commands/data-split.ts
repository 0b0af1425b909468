import { z } from 'zod'
import { name, option, path, share } from '../config/fields.ts'
import { optionSet } from '../config/index.ts'
import type { SplitResult } from '../tasks/data-files.ts'
import { count } from '../util/format.ts'
import { word } from './argument.ts'
import { defineCommand } from './define.ts'

export type { SplitResult }

const options = optionSet(
  z.strictObject({
    output: option(path, {
      group: 'Data',
      description: 'Folder that receives train.jsonl and valid.jsonl',
      placeholder: 'DIR',
    }),
    share: option(share.default(0.1), {
      group: 'Data',
      description: 'Share of the records that goes to valid.jsonl: 5% or 0.05',
      placeholder: 'SHARE',
      accepts: 'a share between 0 and 1, or a percentage such as 5%',
    }),
    group: option(name.optional(), {
      group: 'Data',
      description: 'Key of the records: those with the same value stay on one side',
      placeholder: 'KEY',
    }),
    seed: option(
      z
        .int()
        .min(0)
        .max(2 ** 32 - 1)
        .default(0),
      { group: 'Data', description: 'Decides which records they are' },
    ),
  }),
)

/** Options of `splitData` as a user passes them. */
export type SplitDataInput = z.input<typeof options.schema>

/** Divides data into `train.jsonl` and `valid.jsonl`, each record by its own content: the same way again, and with more records. */
export const splitData: (data: string, input: SplitDataInput) => Promise<SplitResult> = defineCommand({
  name: 'data split',
  summary: 'Divide data into a file for training and one for validation',
  usage: 'FILES --output DIR [--share 10%] [--group KEY] [flags]',
  notes:
    'Which side a record is on follows from its content (or its group) and the seed: equal records are never on both.',
  argument: word('data', 'FILES'),
  options,
  run: async (config) => (await import('../tasks/data-files.ts')).splitFiles(config),
  text: ({ train, valid }) => [train, valid].map(({ path: file, records }) => `${file}: ${count(records)} records`),
})
