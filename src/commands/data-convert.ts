import { z } from 'zod'
import { option, path } from '../config/fields.ts'
import { reading } from '../config/groups/data.ts'
import { optionSet } from '../config/index.ts'
import type { ConvertResult } from '../tasks/data-files.ts'
import { count } from '../util/format.ts'
import { word } from './argument.ts'
import { defineCommand } from './define.ts'

export type { ConvertResult }

const options = optionSet(
  z.strictObject({
    output: option(path, { group: 'Data', description: 'JSONL file to write', placeholder: 'FILE' }),
    shape: reading.shape,
    columns: reading.columns,
  }),
)

/** Options of `convertData` as a user passes them. */
export type ConvertDataInput = z.input<typeof options.schema>

/** Writes data of any shape as chats in JSONL, as OpenAI has them. */
export const convertData: (data: string, input: ConvertDataInput) => Promise<ConvertResult> = defineCommand({
  name: 'data convert',
  summary: 'Write data of any shape as chats in JSONL, {"messages": [...]}',
  usage: 'FILES --output FILE [flags]',
  notes: 'Prompts and completions become what the user says and what the assistant answers.',
  argument: word('data', 'FILES'),
  options,
  run: async (config) => (await import('../tasks/data-files.ts')).convertFiles(config),
  text: ({ path: file, records }) => [`${file}: ${count(records)} records`],
})

/**
 * Writes what a function makes of each record of `data` as JSONL, for files whose records are not what is read; undefined leaves one out:
 * `await mapData('orders.csv', 'train.jsonl', ({ q, a }) => ({ prompt: q, completion: a }))`.
 *
 * @throws LowrankError `data`: a record is malformed; `io`; `config`: the output is there already.
 */
export async function mapData(
  data: string,
  output: string,
  map: (record: Readonly<Record<string, unknown>>) => unknown,
): Promise<ConvertResult> {
  const { mapFiles } = await import('../tasks/data-files.ts')
  return mapFiles(data, output, (record) => map(record as Readonly<Record<string, unknown>>))
}
