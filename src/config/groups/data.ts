import { z } from 'zod'
import { count, name, option, path, share } from '../fields.ts'
import { modelAndData } from './model.ts'

const group = 'Data'

/** Files of data: one text, with commas between several, or a list of them. */
const files = z
  .union([path, z.array(path).min(1)])
  .transform((value) => (typeof value === 'string' ? value : value.join(',')))
  .meta({ path: true })

const filesMeta = {
  group: 'Model and data',
  resume: 'free',
  placeholder: 'FILES',
  accepts: 'a path, or several with commas between',
} as const

/** Files that are read, by the option that names them. */
export const dataFiles = {
  train: option(files, {
    ...filesMeta,
    description: 'Training data: files, folders or patterns, a:2 for twice an epoch (docs/data.md)',
  }),
  valid: option(files.optional(), { ...filesMeta, description: 'Validation data, in the same forms' }),
  validSplit: option(share.optional(), {
    group: 'Model and data',
    description: 'Share of the training data that is put apart for validation, chosen by the seed: 5% or 0.05',
    placeholder: 'SHARE',
    accepts: 'a share between 0 and 1, or a percentage such as 5%',
  }),
  data: option(files, { ...filesMeta, description: 'Data to evaluate on, in the same forms as for training' }),
}

/** How data is read. */
export const reading = {
  shape: option(z.enum(['pairs', 'messages', 'conversations', 'alpaca', 'text', 'preference']).optional(), {
    group,
    description: 'Form of the records',
    unset: 'that of the first record',
  }),
  columns: option(z.record(name, name).optional(), {
    group,
    description: 'Columns under other names: prompt=question,completion=answer',
    placeholder: 'KEY=NAME,...',
    accepts: 'names, each with the name of a column',
  }),
  chat: option(z.boolean().default(false), {
    group,
    description: 'Prompt and completion are what the user says and what the assistant answers',
  }),
  chatTemplate: option(path.optional(), {
    group,
    description: 'What writes conversations: chatml, llama-3, gemma, mistral, zephyr, alpaca, or a file',
    placeholder: 'NAME|FILE',
    resume: 'free',
    unset: "the model's own",
  }),
  templateDate: option(z.iso.date().optional(), {
    group,
    description: 'The day that a chat template writes, if it writes one (Llama 3.2)',
    placeholder: 'YYYY-MM-DD',
    accepts: 'a date such as 2026-11-27',
    unset: 'today; of a run that goes on, or of an adapter, the day of its training',
  }),
  trainOnInputs: option(z.boolean().default(false), {
    group,
    description: 'Learn everything, and not only the completions or what the assistant says',
  }),
  lastTurnOnly: option(z.boolean().default(false), {
    group,
    description: 'Learn only the last of what the assistant says in a conversation',
  }),
  dataCache: option(path.optional(), {
    group,
    resume: 'free',
    description: 'Folder that keeps the tokens of data for later runs, and off memory; "none" keeps them in memory',
    placeholder: 'DIR',
    unset: 'the cache folder of the user, for files of more than 64 MB',
  }),
  maxLength: option(count.min(2).default(1024), {
    group,
    description: 'Longest example in tokens; longer ones lose their end',
  }),
  skipBadLines: option(z.boolean().default(false), {
    group,
    description: 'Skip malformed records of the data, and count them, instead of stopping',
  }),
}

const { skipBadLines: _, ...asTrained } = reading

/** Options of both commands that look at data as a whole. */
export const inspected = {
  model: modelAndData.model,
  valid: dataFiles.valid.meta({ description: 'Validation data: what is in both is found' }),
  ...asTrained,
}
