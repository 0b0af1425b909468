import { z } from 'zod'
import { count, modules, name, option, positive } from '../fields.ts'

export const lora = {
  r: option(count.max(65536).default(8), { group: 'LoRA', description: 'Rank of the adapter matrices' }),
  loraAlpha: option(positive.default(8), { group: 'LoRA', description: 'Scale: updates are multiplied by alpha / r' }),
  targetModules: option(modules.default(['q_proj', 'v_proj']), {
    group: 'LoRA',
    description:
      'Linear layers to adapt: names (suffixes of the module path), a regular expression over the whole path, or all-linear',
    placeholder: 'A,B',
    accepts: "a list of module names, a regular expression, or 'all-linear'",
  }),
  excludeModules: option(modules.optional(), {
    group: 'LoRA',
    description: 'Modules left out of the target: names or a regular expression',
    placeholder: 'A,B',
    accepts: 'a list of module names or a regular expression',
  }),
  loraDropout: option(z.number().min(0).lt(1).default(0), {
    group: 'LoRA',
    description: 'Share of adapter inputs dropped while training',
  }),
  bias: option(z.enum(['none', 'all', 'lora_only']).default('none'), {
    group: 'LoRA',
    description: 'Which biases of the base model are trained too',
  }),
  useRslora: option(z.boolean().default(false), {
    group: 'LoRA',
    description: 'Scale by alpha / sqrt(r) (rank-stabilized LoRA)',
  }),
  rankPattern: option(z.record(name, count.max(65536)).optional(), {
    group: 'LoRA',
    description: 'Ranks of single modules, by name or regular expression',
  }),
  alphaPattern: option(z.record(name, positive).optional(), {
    group: 'LoRA',
    description: 'Alphas of single modules, by name or regular expression',
  }),
  layersToTransform: option(z.array(z.int().min(0).max(65535)).min(1).optional(), {
    group: 'LoRA',
    description: 'Layers to adapt, counted from 0',
    unset: 'all',
  }),
  modulesToSave: option(z.array(name).min(1).optional(), {
    group: 'LoRA',
    description: 'Modules trained in full and saved with the adapter',
  }),
}

/** The options that describe an adapter: without meaning where every weight is trained. */
export const loraKeys = Object.keys(lora) as readonly (keyof typeof lora)[]
