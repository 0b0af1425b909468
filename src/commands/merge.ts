import { z } from 'zod'
import { option, path, unset } from '../config/fields.ts'
import { dataFiles, reading } from '../config/groups/data.ts'
import { machine } from '../config/groups/machine.ts'
import { modelAndData } from '../config/groups/model.ts'
import { heldBase } from '../config/groups/quantization.ts'
import { saving } from '../config/groups/saving.ts'
import { watching } from '../config/groups/watching.ts'
import { mergeRules, optionSet } from '../config/index.ts'
import type { MergeResult } from '../tasks/merge.ts'
import { mergeLines } from '../terminal/merge.ts'
import type { StatusOptions } from './compute.ts'
import { defineCommand } from './define.ts'

export type { MergeChange, MergedLayer, MergeResult } from '../tasks/merge.ts'
export type { ComparedModel, MergeComparison } from '../tasks/merge-report.ts'
export type { Divergence } from '../train/divergence.ts'

const group = 'Model and data'

const options = optionSet(
  z.strictObject({
    model: modelAndData.model,
    adapter: option(
      z.union([path, z.array(path).min(1).max(1000)]).transform((value) => [value].flat()),
      {
        group,
        description:
          'PEFT adapter to add, a folder or ORG/NAME of the hub, with a colon and its scale unless that is 1; may be given several times',
        placeholder: 'DIR[:SCALE]',
        accepts: 'a folder or ORG/NAME, or a list of them, each with a colon and its scale or without',
        repeated: true,
      },
    ),
    output: option(path, { group, description: 'Folder that receives the merged model', placeholder: 'DIR' }),
    dtype: option(z.enum(['auto', 'bf16', 'f16', 'f32']).default('auto'), {
      group,
      description: 'How the weights are stored; auto: as those of the model, and bf16 for what it has in fewer bits',
    }),
    maxShardSize: saving.maxShardSize.meta({ group }),
    into: option(z.enum(['trained', 'original']).default('trained'), {
      group,
      description:
        'Into which weights: those that the adapters were trained on, which for QLoRA are those of the quantized base, or those that the model has',
    }),
    anyBase: option(z.boolean().default(false), {
      group,
      description: 'Merge although the model is not the one that run.json names as the base of the adapter',
    }),
    data: dataFiles.data.optional().meta({
      ...dataFiles.data.meta(),
      description: 'Data on which the merged model is compared with the unmerged adapter',
      unset: 'no comparison',
    }),
    ...reading,
    perDeviceEvalBatchSize: watching.perDeviceEvalBatchSize.meta({ group: 'Data' }),
    ...heldBase,
    method: unset(heldBase.method, 'as the run.json beside the adapters says'),
    loadIn4bit: unset(heldBase.loadIn4bit, 'with method qlora, or as the run.json beside the adapters says'),
    threads: machine.threads,
  }),
  mergeRules,
)

/** Options of `merge` as a user passes them. */
export type MergeConfigInput = z.input<typeof options.schema>

/**
 * Adds adapters to a model, each times its scale, and writes the sum as a model folder, which transformers loads and which serves as `model`
 * here.
 */
export const merge: (config: MergeConfigInput, options?: StatusOptions) => Promise<MergeResult> = defineCommand({
  name: 'merge',
  summary: 'Add adapters to a model, and write the sum as a model of its own',
  usage: '[flags]',
  notes:
    'Weights are added in f32 and rounded once. The adapter of a QLoRA run is added to the base as it was held in training. What that changes ' +
    'is reported for each layer, and with --data for what is predicted, also in 8 and 4 bits (docs/merge.md).',
  options,
  load: async () => (await import('../tasks/merge.ts')).runMerge,
  announce: ({ model, adapter }) => `merging ${adapter.join(', ')} into ${model}`,
  text: (result) => mergeLines(result),
})
