import { z } from 'zod'
import { option, path } from '../config/fields.ts'
import { machine } from '../config/groups/machine.ts'
import { modelAndData, openedModel } from '../config/groups/model.ts'
import { heldBase } from '../config/groups/quantization.ts'
import { saving } from '../config/groups/saving.ts'
import { heldRules, optionSet } from '../config/index.ts'
import { exportDtypes, exportForms, exportNames } from '../export/forms.ts'
import type { ExportResult } from '../tasks/export.ts'
import { exportLines } from '../terminal/export.ts'
import type { StatusOptions } from './compute.ts'
import { defineCommand } from './define.ts'

export type { ExportResult } from '../tasks/export.ts'
export type { Checked, LogitsComparison } from '../export/exporter.ts'
export type { ExportDtype, ExportForm } from '../export/forms.ts'

const group = 'Model and data'

const options = optionSet(
  z.strictObject({
    model: modelAndData.model.optional().meta({ ...modelAndData.model.meta(), unset: 'as the adapter names it' }),
    adapter: openedModel.adapter,
    to: option(z.enum(exportNames), { group, description: 'What is written' }),
    output: option(path, {
      group,
      description: 'File or folder that is written; nothing may be there yet',
      placeholder: 'PATH',
    }),
    dtype: option(z.enum(exportDtypes).optional(), {
      group,
      description: 'How numbers are stored',
      unset: 'f16 in a whole GGUF, f32 in an adapter',
    }),
    check: option(z.boolean().default(true), {
      group,
      description: 'Read what was written again, and compare it: every tensor, tokens, logits',
    }),
    anyBase: option(z.boolean().default(false), {
      group,
      description: 'Export although the model is not the one that run.json names as the base of the adapter',
    }),
    maxShardSize: saving.maxShardSize.meta({ group }),
    ...heldBase,
    threads: machine.threads,
  }),
  heldRules,
)

/** Options of `exportModel` as a user passes them. */
export type ExportOptions = z.input<typeof options.schema>

/** Writes a model, an adapter, or both in one, in the form that another program reads, and reads it again before it says done. */
export const exportModel: (config: ExportOptions, options?: StatusOptions) => Promise<ExportResult> = defineCommand({
  name: 'export',
  summary: 'Write a model or an adapter in the form of another program: GGUF, Ollama, MLX, PEFT',
  usage: '[flags]',
  notes:
    `What is written (--to): ${Object.entries(exportForms)
      .map(([name, what]) => `${name}, ${what}`)
      .join('; ')}. ` +
    'What a form cannot hold is refused, and what was written is read again and compared (docs/export.md).',
  options,
  load: async () => (await import('../tasks/export.ts')).runExport,
  announce: ({ to, adapter, model, output }) =>
    `exporting ${[model, adapter].filter((one) => one !== undefined).join(' with ')} to ${to}: ${output}`,
  text: (result) => exportLines(result),
})
