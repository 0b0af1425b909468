import { z } from 'zod'
import { option, path } from '../fields.ts'

/** Who else receives the events of a run, beside its own files. Names as in transformers' `TrainingArguments`. */
export const reports = {
  reportTo: option(
    z
      .array(z.enum(['none', 'tensorboard', 'webhook']))
      .transform((names) => [...new Set(names)].filter((name) => name !== 'none'))
      .prefault([]),
    {
      group: 'Reports',
      description: 'Trackers that receive the events of the run',
      resume: 'free',
      accepts: 'a list of tensorboard and webhook, or none',
      unset: 'none',
    },
  ),
  loggingDir: option(path.optional(), {
    group: 'Reports',
    description: "Folder of TensorBoard's event files",
    resume: 'free',
    placeholder: 'DIR',
    unset: 'output-dir/runs/TIME',
  }),
  webhookUrl: option(
    z
      .url({ protocol: /^https?$/ })
      .max(4096)
      .optional(),
    {
      group: 'Reports',
      description: 'URL that receives each event of the run by POST, as JSON',
      resume: 'free',
      placeholder: 'URL',
      accepts: 'an address that begins with http:// or https://',
      // Whoever knows it may post there; it may hold a name and password.
      secret: true,
    },
  ),
}
