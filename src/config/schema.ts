import { z } from 'zod'
import { beta, count, COUNT_MAX, modules, name, option, path, positive, size, sizeMeta, unset } from './fields.ts'

/**
 * Every option, declared once: its type, bounds, default, help text and group. Types, command line flags, keys of YAML
 * files, help pages and the JSON Schema all derive from here. Names and defaults are those of PEFT's `LoraConfig` and
 * transformers' `TrainingArguments`, in camelCase.
 */

const modelAndData = {
  model: option(path, {
    group: 'Model and data',
    description: 'Folder of the base model: config.json, *.safetensors, tokenizer.json',
    placeholder: 'DIR',
  }),
  adapter: option(path.optional(), {
    group: 'Model and data',
    description: 'Folder of a PEFT adapter on top of the base model; training continues from it',
    placeholder: 'DIR',
  }),
  maxLength: option(count.min(2).default(1024), {
    group: 'Model and data',
    description: 'Longest example in tokens; longer ones lose their end',
  }),
  skipBadLines: option(z.boolean().default(false), {
    group: 'Model and data',
    description: 'Pass over malformed lines of a data file, counted, in place of stopping',
  }),
}

const perDeviceEvalBatchSize = option(count.max(65536).default(8), {
  group: 'Logging, evaluation and saving',
  description: 'Examples per batch of an evaluation',
})

const threads = option(count.max(1024).optional(), {
  group: 'Machine',
  description: 'Threads that compute',
  unset: 'number of cores',
})

const memory = option(size.optional(), {
  group: 'Machine',
  description: 'Most memory the process may take; the run is planned to fit',
  ...sizeMeta,
  unset: 'no bound',
})

/** As in transformers' `BitsAndBytesConfig`; what is unset follows from the method, in `quantization.ts`. */
const quantization = {
  loadIn4bit: option(z.boolean().optional(), {
    group: 'Quantization',
    description: "Quantize the base model's linear layers to 4 bits a weight",
    unset: 'with method qlora, unless load-in-8bit',
  }),
  loadIn8bit: option(z.boolean().default(false), {
    group: 'Quantization',
    description: "Quantize the base model's linear layers to 8 bits a weight",
  }),
  bnb4bitQuantType: option(z.enum(['nf4', 'fp4']).optional(), {
    group: 'Quantization',
    description: 'The 16 values of 4 bits: normal float, or float',
    unset: 'nf4 with method qlora, else fp4',
  }),
  bnb4bitUseDoubleQuant: option(z.boolean().optional(), {
    group: 'Quantization',
    description: 'Quantize the scales of the 4-bit blocks too',
    unset: 'with method qlora',
  }),
  // What bitsandbytes has kernels for.
  bnb4bitBlockSize: option(z.literal([32, 64, 128, 256, 512, 1024, 2048, 4096]).optional(), {
    group: 'Quantization',
    description: 'Weights that share a scale in 4 bits',
    unset: '64',
  }),
}

/** transformers' default. */
const maxShardSize = option(size.prefault('50GB'), {
  group: 'Logging, evaluation and saving',
  description: 'A checkpoint larger than this is split into files of at most this size',
  ...sizeMeta,
})

const lora = {
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

const training = {
  method: option(z.enum(['lora', 'qlora', 'full']).default('lora'), {
    group: 'Training',
    description: 'Train an adapter, an adapter on a quantized base, or every weight',
  }),
  init: option(z.enum(['pretrained', 'random']).default('pretrained'), {
    group: 'Training',
    description: 'Start from the weights of the model folder, or from random ones (method full)',
  }),
  perDeviceTrainBatchSize: option(count.max(65536).default(8), {
    group: 'Training',
    description: 'Examples per forward and backward pass',
  }),
  gradientAccumulationSteps: option(count.max(65536).default(1), {
    group: 'Training',
    description: 'Passes per optimizer step',
  }),
  numTrainEpochs: option(positive.default(3), { group: 'Training', description: 'Passes over the training data' }),
  maxSteps: option(z.union([z.literal(-1), count]).default(-1), {
    group: 'Training',
    description: 'Optimizer steps; overrides the number of epochs unless -1',
  }),
  learningRate: option(z.number().positive().max(100).default(5e-5), {
    group: 'Training',
    description: 'Highest learning rate',
  }),
  lrSchedulerType: option(z.enum(['linear', 'constant', 'constant_with_warmup', 'cosine']).default('linear'), {
    group: 'Training',
    description: 'Course of the learning rate after the warmup',
  }),
  warmupSteps: option(z.int().min(0).max(COUNT_MAX).default(0), {
    group: 'Training',
    description: 'Steps over which the learning rate rises from 0; overrides warmup-ratio unless 0',
  }),
  warmupRatio: option(z.number().min(0).max(1).default(0), {
    group: 'Training',
    description: 'The same as a share of all steps',
  }),
  optim: option(z.enum(['adamw', 'adamw-8bit']).default('adamw'), {
    group: 'Training',
    description: 'Optimizer: AdamW with its state in f32, or in blocks of 8 bits',
  }),
  weightDecay: option(z.number().min(0).max(100).default(0), {
    group: 'Training',
    description: 'Decoupled weight decay of AdamW',
  }),
  adamBeta1: option(beta.default(0.9), { group: 'Training', description: 'Decay of the first moment' }),
  adamBeta2: option(beta.default(0.999), { group: 'Training', description: 'Decay of the second moment' }),
  adamEpsilon: option(z.number().positive().max(1).default(1e-8), {
    group: 'Training',
    description: 'Added to the root of the second moment',
  }),
  maxGradNorm: option(z.number().min(0).max(1e6).default(1), {
    group: 'Training',
    description: 'Gradients with a larger norm are scaled down to it; 0 switches clipping off',
  }),
  seed: option(
    z
      .int()
      .min(0)
      .max(2 ** 32 - 1)
      .default(42),
    { group: 'Training', description: 'Seed of initialization, shuffling and dropout' },
  ),
}

const watching = {
  loggingSteps: option(count.default(500), {
    group: 'Logging, evaluation and saving',
    description: 'Steps between two log lines',
  }),
  evalStrategy: option(z.enum(['no', 'steps', 'epoch']).optional(), {
    group: 'Logging, evaluation and saving',
    description: 'When to evaluate',
    unset: 'steps with --eval-steps, else epoch with --valid, else no',
  }),
  evalSteps: option(count.optional(), {
    group: 'Logging, evaluation and saving',
    description: 'Steps between two evaluations',
    unset: 'logging-steps, where the strategy is steps',
  }),
  evalOnStart: option(z.boolean().default(false), {
    group: 'Logging, evaluation and saving',
    description: 'Evaluate before the first step too, to compare',
  }),
  perDeviceEvalBatchSize,
  saveStrategy: option(z.enum(['no', 'steps', 'epoch']).default('steps'), {
    group: 'Logging, evaluation and saving',
    description: 'When to write a checkpoint; the end result is always written',
  }),
  saveSteps: option(count.default(500), {
    group: 'Logging, evaluation and saving',
    description: 'Steps between two checkpoints',
  }),
  saveTotalLimit: option(count.optional(), {
    group: 'Logging, evaluation and saving',
    description: 'Checkpoints kept; the oldest go first',
    unset: 'all',
  }),
  saveDtype: option(z.enum(['auto', 'f32', 'bf16', 'f16']).default('auto'), {
    group: 'Logging, evaluation and saving',
    description: 'How the weights of a whole model are stored (method full); auto: as in the base',
  }),
  maxShardSize,
  loadBestModelAtEnd: option(z.boolean().default(false), {
    group: 'Logging, evaluation and saving',
    description: 'Keep the weights with the lowest evaluation loss, not the last',
  }),
  samples: option(z.int().min(0).max(1000).default(0), {
    group: 'Logging, evaluation and saving',
    description: 'Validation prompts completed before and after training, to compare',
  }),
}

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
  ...watching,
  threads,
  activations: option(z.enum(['keep', 'recompute', 'auto']).default('auto'), {
    group: 'Machine',
    description: 'Keep what the backward pass needs (faster), or compute it again (less memory)',
  }),
  memory,
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
  ...quantization,
  loadIn4bit: unset(quantization.loadIn4bit, 'no'),
  bnb4bitQuantType: unset(quantization.bnb4bitQuantType, 'fp4'),
  bnb4bitUseDoubleQuant: unset(quantization.bnb4bitUseDoubleQuant, 'no'),
  perDeviceEvalBatchSize: perDeviceEvalBatchSize.meta({ group: 'Model and data' }),
  threads,
  memory,
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
  maxShardSize: maxShardSize.meta({ group: 'Model and data' }),
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

/** Options of an evaluation, complete. */
export type EvalConfig = z.output<typeof evalSchema> & { loadIn4bit: boolean }

/** Options of `quantize` as a user passes them. */
export type QuantizeConfigInput = z.input<typeof quantizeSchema>

/** Options of `quantize`, complete. */
export type QuantizeConfig = z.output<typeof quantizeSchema> & { loadIn4bit: boolean }

/** The options that describe how a base model is quantized. */
export type QuantizationOptions = Pick<EvalConfig, keyof typeof quantization>

/** The options that describe an adapter: without meaning where every weight is trained. */
export const loraKeys = Object.keys(lora) as readonly (keyof typeof lora)[]
