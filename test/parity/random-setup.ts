/* What a random set-up of `random.ts` is: everything that a run depends on, within what Lowrank and PEFT both take. */
import type { TrainConfigInput } from '../../src/config/index.ts'
import type { MemoryChoice } from '../../src/config/index.ts'
import type { Draws } from '../draws.ts'

/** Tokens of the tokenizer; the embedding has as many rows, or some more. */
export const vocabulary = 290

export interface Setup {
  /** `config.json`, as transformers' `LlamaConfig` takes it. */
  readonly model: ReturnType<typeof randomModel>
  readonly dtype: 'float32' | 'bfloat16' | 'float16'
  /** Whether `rope_theta` and `rope_scaling` stand for `rope_parameters`. */
  readonly oldRope: boolean
  readonly options: Partial<TrainConfigInput>
  readonly memory: MemoryChoice
  readonly examples: readonly { readonly prompt: string; readonly completion: string }[]
}

export function randomSetup(draws: Draws): Setup {
  const model = randomModel(draws)
  const method = draws.pick(['lora', 'lora', 'qlora', 'qlora', 'full'] as const)
  const lora = method === 'full' ? {} : randomLora(draws, model.num_hidden_layers)
  const options: Partial<TrainConfigInput> = {
    method,
    seed: draws.below(1000),
    maxSteps: draws.between(3, 5),
    maxLength: draws.pick([24, 40, 64]),
    perDeviceTrainBatchSize: draws.between(1, 4),
    gradientAccumulationSteps: draws.between(1, 3),
    packing: draws.chance(0.4),
    groupByLength: draws.chance(0.2),
    saveStrategy: 'no',
    ...(draws.chance(0.2) ? { padToMultipleOf: draws.pick([4, 16]) } : {}),
    ...randomOptimizer(draws, { lora: method !== 'full', norms: lora.modulesToSave?.some(isNorm) === true }),
    ...randomSchedule(draws),
    ...lora,
    ...(method === 'qlora' ? randomQuantization(draws) : {}),
  }
  return {
    model,
    dtype: draws.pick(['float32', 'bfloat16', 'float16']),
    oldRope: draws.chance(0.3),
    options,
    memory: randomMemory(draws, method),
    examples: randomExamples(draws),
  }
}

function randomModel(draws: Draws) {
  const kvHeads = draws.between(1, 3)
  const heads = kvHeads * draws.between(1, 4)
  const bias = draws.chance(0.5)
  return {
    vocab_size: vocabulary + draws.pick([0, 0, 7, 30]),
    // transformers wants a multiple, also where the size of a head is given.
    hidden_size: heads * draws.between(Math.ceil(12 / heads), Math.max(2, Math.floor(72 / heads))),
    intermediate_size: draws.pick([24, 56, 96, 112]),
    num_hidden_layers: draws.between(1, 3),
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: draws.pick([4, 8, 12, 16]),
    attention_bias: bias,
    mlp_bias: draws.chance(0.3) ? !bias : bias,
    tie_word_embeddings: draws.chance(0.5),
    rms_norm_eps: draws.pick([1e-5, 1e-6]),
    rope_parameters: randomRope(draws),
    max_position_embeddings: 128,
    pad_token_id: 0,
    bos_token_id: null,
    eos_token_id: 0,
  }
}

function randomRope(draws: Draws) {
  const rope_theta = draws.pick([10_000, 500_000])
  const rope_type = draws.pick(['default', 'linear', 'llama3'] as const)
  if (rope_type === 'default') return { rope_type, rope_theta }
  const factor = draws.pick([2, 8])
  if (rope_type === 'linear') return { rope_type, rope_theta, factor }
  const original_max_position_embeddings = draws.pick([16, 64])
  return { rope_type, rope_theta, factor, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings }
}

const modules = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] as const

function randomLora(draws: Draws, layers: number): Partial<TrainConfigInput> {
  const some = draws.some(modules)
  const names = some.length > 0 ? some : ['v_proj' as const]
  const kind = draws.pick(['names', 'names', 'all-linear', 'expression'] as const)
  const targetModules =
    kind === 'names' ? names : kind === 'expression' ? `.*\\.(${names.join('|')})` : ('all-linear' as const)
  const name = draws.pick(names)
  const layer = draws.below(layers)
  const inLayer = `layers.${layer}.${/^(gate|up|down)/.test(name) ? 'mlp' : 'self_attn'}.${name}`
  return {
    targetModules,
    r: draws.pick([1, 2, 4, 8]),
    loraAlpha: draws.pick([1, 4, 8, 16]),
    useRslora: draws.chance(0.3),
    bias: draws.pick(['none', 'none', 'all', 'lora_only']),
    ...(draws.chance(0.3) ? { rankPattern: { [draws.pick([name, inLayer])]: draws.between(1, 6) } } : {}),
    ...(draws.chance(0.3) ? { alphaPattern: { [draws.pick([name, inLayer])]: draws.between(1, 12) } } : {}),
    ...(kind === 'names' && draws.chance(0.2) ? { layersToTransform: [layer] } : {}),
    ...(kind === 'all-linear' && draws.chance(0.3) ? excluding(draws.pick(modules), name) : {}),
    ...(draws.chance(0.25)
      ? { modulesToSave: [draws.pick(['lm_head', 'embed_tokens', 'norm', 'input_layernorm'])] }
      : {}),
  }
}

function randomQuantization(draws: Draws): Partial<TrainConfigInput> {
  if (draws.chance(0.3)) return { loadIn8bit: true }
  return {
    bnb4bitQuantType: draws.pick(['nf4', 'fp4']),
    bnb4bitUseDoubleQuant: draws.chance(0.5),
    bnb4bitBlockSize: draws.pick([32, 64, 128, 256]),
  }
}

const isNorm = (name: string): boolean => name.endsWith('norm')

function randomOptimizer(
  draws: Draws,
  trained: { readonly lora: boolean; readonly norms: boolean },
): Partial<TrainConfigInput> {
  const optim = draws.pick(['adamw', 'adamw', 'adamw', 'adamw-8bit', 'sgd', 'sgd'] as const)
  const common = {
    optim,
    weightDecay: draws.pick([0, 0.01, 0.1]),
    maxGradNorm: draws.pick([0, 0.3, 1, 5]),
    labelSmoothingFactor: draws.pick([0, 0, 0, 0.1, 0.3]),
  }
  if (optim === 'sgd') {
    const [momentum, nesterov] = [draws.pick([0, 0.5, 0.9]), draws.chance(0.4)]
    const optimArgs = { momentum, ...(momentum > 0 && nesterov ? { nesterov } : { dampening: draws.pick([0, 0.3]) }) }
    // With 0.03 the course is unstable where alpha / r is large: what f32 rounds grows by ten a step, in PyTorch against f64 too.
    return { ...common, optimArgs, learningRate: draws.pick([0.003, 0.01]) }
  }
  return {
    ...common,
    learningRate: draws.pick([1e-4, 1e-3, 5e-3]),
    adamBeta1: draws.pick([0.9, 0.8]),
    adamBeta2: draws.pick([0.999, 0.95]),
    adamEpsilon: draws.pick([1e-8, 1e-6]),
    // PEFT's LoRA+ lets norms decay, where transformers' Trainer does not, nor does Lowrank.
    ...(trained.lora && !trained.norms && optim === 'adamw' && draws.chance(0.3)
      ? { loraplusLrRatio: draws.pick([4, 16]) }
      : {}),
  }
}

function randomSchedule(draws: Draws): Partial<TrainConfigInput> {
  const warmupSteps = draws.pick([0, 0, 1, 2, 0.3])
  const lrSchedulerType = draws.pick([
    'linear',
    'cosine',
    'cosine_with_restarts',
    'cosine_with_min_lr',
    'polynomial',
    'constant',
    'constant_with_warmup',
    'inverse_sqrt',
    'warmup_stable_decay',
  ] as const)
  const lrSchedulerKwargs = {
    cosine_with_min_lr: { minLrRate: 0.2 },
    warmup_stable_decay: { numDecaySteps: 2 },
    cosine_with_restarts: { numCycles: 2 },
    polynomial: { power: 2 },
  }
  const kwargs = Object.entries(lrSchedulerKwargs).find(([name]) => name === lrSchedulerType)?.[1]
  return { warmupSteps, lrSchedulerType, ...(kwargs === undefined ? {} : { lrSchedulerKwargs: kwargs }) }
}

function randomMemory(draws: Draws, method: 'lora' | 'qlora' | 'full'): MemoryChoice {
  const common = { headRows: draws.pick([3, 32, 512]), matmulPrecision: 'highest' } as const
  // Blocks on disk stay frozen, and are not quantized each time that they are read.
  if (method === 'lora' && draws.chance(0.2)) {
    return { activations: 'recompute', expandWeights: false, ...common, streamed: { group: draws.between(1, 3) } }
  }
  return {
    activations: draws.pick(['keep', 'recompute']),
    expandWeights: draws.chance(0.5),
    ...common,
    streamed: undefined,
  }
}

const words = [
  'the',
  'ticket',
  'order',
  'was',
  'lost',
  'and',
  'Ünser',
  '12',
  'vacuum',
  '.',
  '\n',
  'reply:',
  '①',
  'never',
]

function randomExamples(draws: Draws): Setup['examples'] {
  const text = (low: number, high: number): string =>
    Array.from({ length: draws.between(low, high) }, () => draws.pick(words)).join(' ')
  const count = draws.between(4, 14)
  // The first is short: whatever is cut, something is left to learn.
  return Array.from({ length: count }, (_, i) => ({
    prompt: text(0, i === 0 ? 2 : 12),
    completion: ` ${text(1, 8)}`,
  }))
}

/** A pattern for what is left out would have no effect, and is refused. */
function excluding(module: string, named: string): Partial<TrainConfigInput> {
  return module === named ? {} : { excludeModules: [module] }
}
