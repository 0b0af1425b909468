import { z } from 'zod'
import { count, option, path } from '../config/fields.ts'
import { reading } from '../config/groups/data.ts'
import { modelAndData } from '../config/groups/model.ts'
import { optionSet } from '../config/index.ts'
import type { PreviewRow, PreviewToken } from '../text/preview.ts'
import { previewLines } from '../terminal/data.ts'
import { word } from './argument.ts'
import type { StatusOptions } from './compute.ts'
import { defineCommand } from './define.ts'

export type { PreviewRow, PreviewToken }

const options = optionSet(
  z.strictObject({
    model: modelAndData.model,
    row: option(count.default(1), { group: 'Data', description: 'The first example to show, from 1' }),
    rows: option(count.max(1000).default(3), { group: 'Data', description: 'How many examples to show' }),
    html: option(path.optional(), {
      group: 'Data',
      description: 'Write them as a page to this file, which is not replaced if it is there',
      placeholder: 'FILE',
    }),
    ...reading,
  }),
)

/** Options of `previewData` as a user passes them. */
export type PreviewDataInput = z.input<typeof options.schema>

/** The very tokens that the model sees of some examples, and which of them are learned. */
export const previewData: (
  data: string,
  input: PreviewDataInput,
  call?: StatusOptions,
) => Promise<readonly PreviewRow[]> = defineCommand({
  name: 'data preview',
  summary: 'Show the very tokens that the model sees of some examples, and which of them are learned',
  usage: 'FILES --model MODEL [--row N] [flags]',
  notes: 'With --json a line for each example: "ids", "labels" (-100 where a token is not learned) and "text".',
  argument: word('data', 'FILES'),
  options,
  load: async () => (await import('../tasks/data.ts')).runPreview,
  aside: (_, { config: { html } }) => (html === undefined ? [] : [`written to ${html}`]),
  text: (rows, { colour }) => previewLines(rows, { colour }),
  styled: true,
  jsonLines: (rows) => rows.map(asLine),
})

/** As Trainer's collators have it. */
function asLine({ row, place, tokens }: PreviewRow): object {
  return {
    row,
    place,
    ids: tokens.map(({ id }) => id),
    labels: tokens.map(({ id, label }) => (label ? id : -100)),
    text: tokens.map(({ text }) => text).join(''),
  }
}
