import leven from 'leven'
import { snakeCase, type Option } from './options.ts'

/** Names that other tools use for an option, beside its own in camelCase and snake_case. */
const ALIASES: Readonly<Record<string, string>> = {
  model_name_or_path: 'model',
  base_model_name_or_path: 'model',
  base_model: 'model',
  train_file: 'train',
  validation_file: 'valid',
  lora_r: 'r',
  lora_rank: 'r',
  lora_bias: 'bias',
  lora_target_modules: 'targetModules',
  max_seq_length: 'maxLength',
  evaluation_strategy: 'evalStrategy',
  resume_from_checkpoint: 'resumeFrom',
}

/** Values that other tools use, by option, and the one that means the same here. */
const VALUES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  optim: {
    adamw_torch: 'adamw',
    adamw_torch_fused: 'adamw',
    adamw_hf: 'adamw',
    paged_adamw: 'adamw',
    paged_adamw_32bit: 'adamw',
    adamw_8bit: 'adamw-8bit',
    adamw_bnb_8bit: 'adamw-8bit',
    paged_adamw_8bit: 'adamw-8bit',
  },
  lrSchedulerType: { wsd: 'warmup_stable_decay' },
  saveDtype: {
    float32: 'f32',
    fp32: 'f32',
    bfloat16: 'bf16',
    float16: 'f16',
    fp16: 'f16',
  },
}

const NO_MIXED_PRECISION =
  'Lowrank computes in f32 and reads the base model in the precision it is stored in; remove it.'

/** Options of the Python tools that Lowrank does not have, and what to do in their place. */
const HINTS: Readonly<Record<string, string>> = {
  bf16: NO_MIXED_PRECISION,
  fp16: NO_MIXED_PRECISION,
  tf32: NO_MIXED_PRECISION,
  torch_dtype: NO_MIXED_PRECISION,
  bnb_4bit_compute_dtype: 'Lowrank computes in f32, whatever the base is stored in; remove it.',
  bnb_4bit_quant_storage: 'Quantized weights are stored as bytes (uint8), as is the default there; remove it.',
  llm_int8_threshold: 'Lowrank computes in f32, where outliers need no path of their own; remove it.',
  llm_int8_skip_modules: 'Norms, embeddings and the output head are never quantized; remove it.',
  quantization_config: 'Give its keys as options of their own, as in load_in_4bit: true.',
  gradient_checkpointing: 'Use "activations": keep, recompute or auto.',
  packing_strategy: 'Whole examples are laid into rows of even length; remove it.',
  padding_free: 'Use "packing", which computes hardly any padding.',
  eval_packing: 'Evaluations of a run are packed with "packing" too; remove it.',
  train_sampling_strategy: 'Use "group_by_length": true for steps of similar length; the order is random otherwise.',
  length_column_name: 'Lengths are counted in tokens; remove it.',
  no_cuda: 'Lowrank computes on the CPU; remove it.',
  use_cpu: 'Lowrank computes on the CPU; remove it.',
  task_type: 'The task is always CAUSAL_LM; remove it.',
  peft_type: 'Use "method": lora, qlora or full.',
  loraplus_lr_embedding: 'Adapters are put on linear layers only; remove it.',
  loraplus_weight_decay: 'Use "weight_decay", which counts with LoRA+ too.',
  init_lora_weights: "The adapter starts as PEFT's default does; remove it.",
}

/** Short names that people try, and the option they mean. */
const MEANT: Readonly<Record<string, string>> = {
  lr: 'learningRate',
  alpha: 'loraAlpha',
  rank: 'r',
  dropout: 'loraDropout',
  target: 'targetModules',
  epochs: 'numTrainEpochs',
  num_epochs: 'numTrainEpochs',
  steps: 'maxSteps',
  batch_size: 'perDeviceTrainBatchSize',
  train_batch_size: 'perDeviceTrainBatchSize',
  eval_batch_size: 'perDeviceEvalBatchSize',
  output: 'outputDir',
  out: 'outputDir',
  output_dir: 'output',
  optimizer: 'optim',
  quant_type: 'bnb4bitQuantType',
  double_quant: 'bnb4bitUseDoubleQuant',
  bnb_4bit_double_quant: 'bnb4bitUseDoubleQuant',
  block_size: 'bnb4bitBlockSize',
  blocksize: 'bnb4bitBlockSize',
  load_4bit: 'loadIn4bit',
  load_8bit: 'loadIn8bit',
  max_memory: 'memory',
  eval: 'valid',
  validation: 'valid',
  warmup: 'warmupSteps',
}

/** The nearest of the candidates, if any is near enough to be what was meant. */
export function closest(name: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined
  let bestDistance = Infinity
  const wanted = name.toLowerCase()
  for (const candidate of candidates) {
    const other = candidate.toLowerCase()
    // A third of the letters may differ: "lernRate" is near "learningRate". So is a name cut short.
    const cut = wanted.length >= 3 && other.startsWith(wanted)
    const distance = cut ? 0 : leven(wanted, other)
    const allowed = Math.ceil(Math.max(wanted.length, other.length) / 3)
    if (distance < bestDistance && distance <= allowed && distance < Math.min(wanted.length, other.length)) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

/** The value as Lowrank calls it, where it is one that other tools use. */
export function resolveValue(key: string, value: unknown): unknown {
  const values = Object.hasOwn(VALUES, key) ? VALUES[key] : undefined
  return values !== undefined && typeof value === 'string' && Object.hasOwn(values, value) ? values[value] : value
}

/** The option and value that are meant, where another tool has one option for what is two here. */
export function resolveSwitch(
  options: readonly Option[],
  option: Option,
  value: unknown,
): { readonly option: Option; readonly value: unknown } {
  // transformers' resume_from_checkpoint is a path, or true for the latest.
  const latest = option.key === 'resumeFrom' && /^(true|false)$/i.test(String(value))
  const resume = latest ? options.find(({ key }) => key === 'resume') : undefined
  return resume === undefined ? { option, value } : { option: resume, value: /^true$/i.test(String(value)) }
}

export type Spelling = 'key' | 'snake' | 'flag'

/** The option a name means (camelCase, snake_case, kebab-case or an alias), or what is wrong with the name. */
export function resolveName(
  options: readonly Option[],
  name: string,
  spelling: Spelling,
): { readonly option: Option } | { readonly problem: string } {
  const snake = name.replaceAll('-', '_')
  const key = Object.hasOwn(ALIASES, snake) ? ALIASES[snake] : undefined
  const option = options.find((one) => one.key === name || one.snake === snake || one.key === key)
  if (option !== undefined) return { option }
  const plain = snakeCase(snake)
  if (Object.hasOwn(HINTS, plain)) return { problem: `unknown option. ${HINTS[plain]}` }
  // Suggested as the user spells: somebody who writes snake_case is offered snake_case.
  const form = spelling === 'key' && name.includes('_') ? 'snake' : spelling
  const meant = Object.hasOwn(MEANT, plain) ? options.find((one) => one.key === MEANT[plain]) : undefined
  const near =
    meant?.[form] ??
    closest(
      form === 'flag' ? name.replaceAll('_', '-') : name,
      options.map((one) => one[form]),
    )
  const suggestion = near === undefined ? '' : ` Did you mean "${form === 'flag' ? '--' : ''}${near}"?`
  return { problem: `unknown option.${suggestion}` }
}
