import { z } from 'zod'
import { option, path, unset } from '../config/fields.ts'
import { modelAndData } from '../config/groups/model.ts'
import { quantization } from '../config/groups/quantization.ts'
import { saving } from '../config/groups/saving.ts'
import { optionSet, quantizationOf, quantizationText, quantizedRules } from '../config/index.ts'
import type { QuantizeResult } from '../tasks/quantize.ts'
import { duration, formatSize, plural } from '../util/format.ts'
import type { StatusOptions } from './compute.ts'
import { defineCommand } from './define.ts'

export type { QuantizeResult }

const options = optionSet(
  z.strictObject({
    model: modelAndData.model,
    output: option(path, {
      group: 'Model and data',
      description: 'Folder that receives the quantized model',
      placeholder: 'DIR',
    }),
    ...quantization,
    loadIn4bit: unset(quantization.loadIn4bit, 'yes, unless load-in-8bit'),
    bnb4bitQuantType: unset(quantization.bnb4bitQuantType, 'nf4'),
    bnb4bitUseDoubleQuant: unset(quantization.bnb4bitUseDoubleQuant, 'yes'),
    maxShardSize: saving.maxShardSize.meta({ group: 'Model and data' }),
  }),
  quantizedRules,
)

/** Options of `quantize` as a user passes them. */
export type QuantizeConfigInput = z.input<typeof options.schema>

/**
 * Quantizes a model to 4 bits (nf4 with double quantization by default) or 8, in the layout of bitsandbytes: a
 * folder that transformers loads too, and that serves as `model` here.
 */
export const quantize: (config: QuantizeConfigInput, options?: StatusOptions) => Promise<QuantizeResult> =
  defineCommand({
    name: 'quantize',
    summary: 'Quantize a model to 4 or 8 bits a weight, as bitsandbytes does, into a folder of its own',
    usage: '[flags]',
    notes:
      'Linear layers are quantized; norms, embeddings and the output head stay as they are. The result serves as --model ' +
      'here, and transformers loads it.',
    options,
    load: async () => (await import('../tasks/quantize.ts')).runQuantize,
    announce: (config) => `quantizing ${config.model}: ${quantizationText(quantizationOf(config))}`,
    text: ({ outputDir, bytes: size, tensors, seconds }, { config }) => [
      `saved in ${outputDir}  ${formatSize(size)}  ${quantizationText(quantizationOf(config))}  ` +
        `(${plural(tensors, 'tensor')}, ${duration(seconds)})`,
    ],
    json: (result, { config }) => ({ ...result, quantization: quantizationOf(config) }),
  })
