import { z } from 'zod'
import { count, option, path, unset } from './fields.ts'
import { lora } from './groups/lora.ts'
import { machine } from './groups/machine.ts'
import { modelAndData } from './groups/model.ts'
import { optimization } from './groups/optimization.ts'
import { quantization } from './groups/quantization.ts'
import { reports } from './groups/reports.ts'
import { saving } from './groups/saving.ts'
import { training } from './groups/training.ts'
import { watching } from './groups/watching.ts'

/**
 * Every option, declared once (in `groups/`): its type, bounds, default, help text and group. Types, command line flags, keys of YAML
 * files, help pages and the JSON Schema all derive from here. Names and defaults are those of PEFT's `LoraConfig` and
 * transformers' `TrainingArguments`, in camelCase.
 */

export const trainSchema = z.strictObject({
  model: modelAndData.model,
  adapter: modelAndData.adapter,
  train: option(path, {
    group: 'Model and data',
    description: 'Training data: JSONL, an object with prompt and completion a line',
    placeholder: 'FILE',
  }),
  valid: option(path.optional(), {
    group: 'Model and data',
    description: 'Validation data, in the same form',
    placeholder: 'FILE',
  }),
  outputDir: option(path, {
    group: 'Model and data',
    description: 'Folder that receives the adapter, checkpoints, run.json and metrics.jsonl',
    placeholder: 'DIR',
  }),
  maxLength: modelAndData.maxLength,
  skipBadLines: modelAndData.skipBadLines,
  ...lora,
  ...quantization,
  ...training,
  ...optimization,
  ...watching,
  ...saving,
  ...reports,
  threads: machine.threads,
  activations: option(z.enum(['keep', 'recompute', 'auto']).default('auto'), {
    group: 'Machine',
    description: 'Keep what the backward pass needs (faster), or compute it again (less memory)',
  }),
  memory: machine.memory,
})

/** The word that stands for a quantized base, where nothing is trained. */
const heldFor = option(z.enum(['lora', 'qlora', 'full']).optional(), {
  group: 'Quantization',
  description: 'What was trained: qlora stands for a base in 4-bit NormalFloat with double quantization',
  unset: 'as the run.json beside the adapter says',
})

export const evalSchema = z.strictObject({
  model: modelAndData.model,
  adapter: modelAndData.adapter.meta({ description: 'Folder of a PEFT adapter on top of the base model' }),
  data: option(path, {
    group: 'Model and data',
    description: 'Data to evaluate on: JSONL, an object with prompt and completion a line',
    placeholder: 'FILE',
  }),
  maxLength: modelAndData.maxLength,
  skipBadLines: modelAndData.skipBadLines,
  method: heldFor,
  ...quantization,
  loadIn4bit: unset(quantization.loadIn4bit, 'with method qlora, or as the run.json beside the adapter says'),
  perDeviceEvalBatchSize: watching.perDeviceEvalBatchSize.meta({ group: 'Model and data' }),
  ...machine,
})

export const quantizeSchema = z.strictObject({
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
})

export const selftestSchema = z.strictObject({
  model: modelAndData.model,
  adapter: modelAndData.adapter.meta({ description: 'Folder of a PEFT adapter on top of the base model' }),
  data: option(path.optional(), {
    group: 'Model and data',
    description: 'Data to check with: the first examples of a JSONL file as for training',
    placeholder: 'FILE',
    unset: 'sentences of its own',
  }),
  maxLength: option(count.min(2).default(128), {
    group: 'Model and data',
    description: 'Longest example in tokens; longer ones lose their end',
  }),
  method: heldFor,
  ...quantization,
  loadIn4bit: evalSchema.shape.loadIn4bit,
  threads: machine.threads,
})

export const replaySchema = z.strictObject({
  step: option(count, { group: 'Replay', description: 'The step to compute again, from 1' }),
  at: option(path.optional(), {
    group: 'Replay',
    description:
      'Take the weights of this folder as they are (a checkpoint, an adapter, or a model where all weights were trained), ' +
      'instead of computing the steps before',
    placeholder: 'DIR',
    unset: 'the newest checkpoint before the step, and the steps from there',
  }),
  sort: option(z.enum(['loss', 'batch']).default('loss'), {
    group: 'Replay',
    description: 'Order of the examples: the highest loss first, or as they were computed',
  }),
  anyway: option(z.boolean().default(false), {
    group: 'Replay',
    description: 'Replay although model or data have changed since the run',
  }),
})

export const loadModelSchema = z.strictObject({
  model: modelAndData.model,
  adapter: evalSchema.shape.adapter,
  threads: machine.threads,
})

export const generateSchema = z.strictObject({
  maxNewTokens: option(count.default(128), {
    group: 'Model and data',
    description: 'Tokens to add at most; generation ends earlier with the end-of-sequence token',
  }),
})

/** Options of a training run as a user passes them; what is left out takes its default. */
export type TrainConfigInput = z.input<typeof trainSchema>

/**
 * Options of a training run, complete: defaults filled in, `evalStrategy` and `loadIn4bit` decided, `evalSteps` and the
 * options of a 4-bit base set where they count.
 */
export type TrainConfig = Omit<z.output<typeof trainSchema>, 'evalStrategy' | 'loadIn4bit'> & {
  evalStrategy: 'no' | 'steps' | 'epoch'
  loadIn4bit: boolean
}

/** Options of an evaluation as a user passes them. */
export type EvalConfigInput = z.input<typeof evalSchema>

/** Options of an evaluation, complete. `loadIn4bit` is unset where the record beside the adapter is to decide. */
export type EvalConfig = z.output<typeof evalSchema>

/** Options of `quantize` as a user passes them. */
export type QuantizeConfigInput = z.input<typeof quantizeSchema>

/** Options of `quantize`, complete. */
export type QuantizeConfig = z.output<typeof quantizeSchema> & { loadIn4bit: boolean }

export const runsSchema = z.strictObject({
  depth: option(z.int().min(0).max(64).default(3), {
    group: 'Reports',
    description: 'Levels of subfolders that are searched',
  }),
})

export const compareSchema = z.strictObject({
  output: option(path.default('compare.html'), {
    group: 'Reports',
    description: 'Page that receives the curves of all runs, laid over one another',
    placeholder: 'FILE',
  }),
})

export const reportSchema = z.strictObject({
  output: option(path.optional(), {
    group: 'Reports',
    description: 'File that receives the report',
    placeholder: 'FILE',
    unset: 'report.html in the folder of the run',
  }),
})

/** Options of `selftest` as a user passes them. */
export type SelftestConfigInput = z.input<typeof selftestSchema>

/** Options of `selftest`, complete. */
export type SelftestConfig = z.output<typeof selftestSchema>

/** Options of `replay` besides the run, as a user passes them. */
export type ReplayOptionsInput = z.input<typeof replaySchema>

/** Options of `replay` besides the run, complete. */
export type ReplayOptions = z.output<typeof replaySchema>

/** Options of `loadModel` as a user passes them. */
export type LoadModelOptionsInput = z.input<typeof loadModelSchema>

/** Options of `generate` as a user passes them. */
export type GenerateOptionsInput = z.input<typeof generateSchema>

/** The options that describe how a base model is quantized. */
export type QuantizationOptions = z.output<typeof quantizationSchema>

export const quantizationSchema = z.object(quantization)

/** The options that describe an adapter: without meaning where every weight is trained. */
export const loraKeys = Object.keys(lora) as readonly (keyof typeof lora)[]
