import type { LayerKind } from '../../util/rope.ts'
import type { JsonObject } from '../json.ts'
import type { ArchitectureKeys } from './keys.ts'
import type { TypedValue } from './values.ts'

/** What the keys of an architecture are read with. */
interface Described {
  readonly keys: ArchitectureKeys
  readonly layers: number
  readonly hiddenSize: number
  readonly heads: number
  readonly headDim: number
  /** Whether the file has a tensor. */
  readonly has: (tensor: string) => boolean
}

/** What is written of a decoder that is computed so. */
export interface Computed {
  readonly modelType: string
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly numHiddenLayers: number
  readonly numAttentionHeads: number
  readonly numKeyValueHeads: number
  readonly headDim: number
  readonly vocabSize: number
  readonly maxPositionEmbeddings: number
  readonly layers: readonly LayerKind[]
  readonly rmsNormEps: number
  readonly attentionScale: number
  readonly scoreCap: number | undefined
  readonly logitCap: number | undefined
  readonly multipliers: { readonly input: number; readonly residual: number; readonly logits: number }
}

/** Metadata by their keys, without the name of the architecture; what is undefined is left out. */
export type OwnEntries = Readonly<Record<string, TypedValue | undefined>>

/** An architecture as llama.cpp names it. */
export interface Architecture {
  /** The `model_type` of its configuration. */
  readonly modelType: string
  /** Other `model_type`s of models that are computed alike. */
  readonly alike?: readonly string[]
  /** Modules of a block by their names in the file, beside or instead of the common ones. */
  readonly modules?: Readonly<Record<string, string>>
  /**
   * Whether rows of queries and keys are in another order, since llama.cpp rotates neighbouring channels of a head, where transformers
   * rotates those of its two halves.
   */
  readonly interleaved?: true
  /** What was added to the weights of norms. */
  readonly normOffset?: 1
  /** The rope base where the file does not have it. */
  readonly ropeTheta?: number
  /** Its own part of config.json. */
  readonly describe?: (described: Described) => JsonObject
  /** Its own metadata, of which `describe` makes the same decoder again. */
  readonly entries?: (computed: Computed) => OwnEntries
}

/** The name of each module of a block. */
const commonModules: Readonly<Record<string, string>> = {
  attn_norm: 'input_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  attn_q_norm: 'self_attn.q_norm',
  attn_k_norm: 'self_attn.k_norm',
  ffn_norm: 'post_attention_layernorm',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
}

const sandwichNorms = {
  post_attention_norm: 'post_attention_layernorm',
  ffn_norm: 'pre_feedforward_layernorm',
  post_ffw_norm: 'post_feedforward_layernorm',
}

const biases = ({ has }: Described): JsonObject => ({
  attention_bias: has('blk.0.attn_q.bias'),
  mlp_bias: has('blk.0.ffn_gate.bias'),
})

const attentionBias = ({ has }: Described): JsonObject => ({ attention_bias: has('blk.0.attn_q.bias') })

/** The largest Gemma of each generation scales scores by the width of all heads, which no key says; llama.cpp knows it by its layers. */
function gemmaScale({ layers, hiddenSize, heads, headDim }: Described, largest: number): JsonObject {
  return { query_pre_attn_scalar: layers === largest ? hiddenSize / heads : headDim }
}

const f32 = (value: number | undefined): TypedValue | undefined => (value === undefined ? undefined : ['f32', value])

/** The window of the layers that have one. */
function windowEntry({ layers }: Computed): OwnEntries {
  const window = layers.find((layer) => layer.window !== undefined)?.window
  return window === undefined ? {} : { 'attention.sliding_window': ['u32', window] }
}

/** Layers that see a window: every one but each `period`th, or those of a list. */
function windows({ keys, layers }: Described, period: number): JsonObject {
  const given = keys.value('attention.sliding_window_pattern')
  const slides = (i: number): boolean => {
    if (Array.isArray(given)) return given[i] === true
    return (i + 1) % (typeof given === 'number' ? given : period) !== 0
  }
  const types = Array.from({ length: layers }, (_, i) => (slides(i) ? 'sliding_attention' : 'full_attention'))
  return { sliding_window: keys.number('attention.sliding_window') || null, layer_types: types }
}

/** The architectures that are read. `llama` is also that of Mistral and of all other models that are computed alike. */
export const architectures: Readonly<Record<string, Architecture>> = {
  llama: { modelType: 'llama', alike: ['mistral'], interleaved: true, describe: biases },
  qwen2: { modelType: 'qwen2' },
  qwen3: { modelType: 'qwen3', describe: attentionBias },
  gemma2: {
    modelType: 'gemma2',
    modules: sandwichNorms,
    normOffset: 1,
    describe: (d) => ({
      ...attentionBias(d),
      ...gemmaScale(d, 46),
      ...windows(d, 2),
      hidden_activation: 'gelu_pytorch_tanh',
      attn_logit_softcapping: d.keys.number('attn_logit_softcapping') || 50,
      final_logit_softcapping: d.keys.number('final_logit_softcapping') || 30,
    }),
    entries: (computed) => ({
      ...windowEntry(computed),
      attn_logit_softcapping: f32(computed.scoreCap),
      final_logit_softcapping: f32(computed.logitCap),
    }),
  },
  gemma3: {
    modelType: 'gemma3_text',
    // The part for texts of a model of texts and images.
    alike: ['gemma3'],
    modules: sandwichNorms,
    normOffset: 1,
    ropeTheta: 1e6,
    describe: (d) => ({
      ...attentionBias(d),
      ...gemmaScale(d, 62),
      ...windows(d, 6),
      hidden_activation: 'gelu_pytorch_tanh',
      final_logit_softcapping: d.keys.number('final_logit_softcapping') || null,
      rope_local_base_freq: d.keys.number('rope.freq_base_swa') ?? 1e4,
    }),
    entries: (computed) => ({
      ...windowEntry(computed),
      final_logit_softcapping: f32(computed.logitCap),
      'rope.freq_base_swa': f32(computed.layers.find(({ window }) => window !== undefined)?.rope?.theta),
    }),
  },
  phi3: {
    modelType: 'phi3',
    modules: { attn_qkv: 'self_attn.qkv_proj', ffn_up: 'mlp.gate_up_proj' },
    describe: ({ keys }) => ({
      // 0 stands for none.
      sliding_window: keys.number('attention.sliding_window') || null,
      original_max_position_embeddings:
        keys.number('rope.scaling.original_context_length') ?? keys.number('context_length') ?? null,
    }),
    // llama.cpp takes a file without one for a model with the window of Phi 3 mini.
    entries: (computed) => ({ 'attention.sliding_window': ['u32', 0], ...windowEntry(computed) }),
  },
  smollm3: {
    modelType: 'smollm3',
    interleaved: true,
    // Which layers know of no positions is not in the file.
    describe: (d) => ({ ...biases(d), no_rope_layer_interval: 4 }),
  },
  olmo2: {
    modelType: 'olmo2',
    modules: { post_attention_norm: 'post_attention_layernorm', post_ffw_norm: 'post_feedforward_layernorm' },
    describe: (d) => {
      // The name of OLMo 3 too, which has windows: its configuration is one that OLMo 2 does not know.
      const window = d.keys.number('attention.sliding_window') || 0
      const { layer_types: types } = windows(d, 4)
      return { ...attentionBias(d), ...(window > 0 ? { sliding_window: window, layer_types: types } : {}) }
    },
  },
  granite: {
    modelType: 'granite',
    interleaved: true,
    describe: (d) => ({
      ...biases(d),
      embedding_multiplier: d.keys.number('embedding_scale') || 1,
      residual_multiplier: d.keys.number('residual_scale') || 1,
      attention_multiplier: d.keys.number('attention.scale') || 1 / Math.sqrt(d.headDim),
      logits_scaling: d.keys.number('logit_scale') || 1,
    }),
    entries: ({ attentionScale, multipliers: { input, residual, logits } }) => ({
      'attention.scale': f32(attentionScale),
      embedding_scale: f32(input),
      residual_scale: f32(residual),
      logit_scale: f32(1 / logits),
    }),
  },
}

/** How a tensor of a hub model is stored. */
interface StoredTensor {
  /** Its name in the file. */
  readonly name: string
  /** Heads whose rows are in the order of llama.cpp. */
  readonly interleaved: 'queries' | 'keys' | undefined
  /** What was added to it. */
  readonly offset: 0 | 1
}

const outer: Readonly<Record<string, string>> = {
  token_embd: 'model.embed_tokens',
  output_norm: 'model.norm',
  output: 'lm_head',
}

/** Tensors that are read with the configuration. */
export const ropeTensors: readonly string[] = [
  'rope_freqs.weight',
  'rope_factors_long.weight',
  'rope_factors_short.weight',
]

/** The tensors of a file by their names in a hub model; undefined of those that have none. */
export function hubName(architecture: Architecture, tensor: string): string | undefined {
  const [, block, module = '', kind = ''] = /^(?:blk\.(\d{1,4})\.)?([a-z_]+)\.(weight|bias)$/.exec(tensor) ?? []
  const modules = block === undefined ? outer : { ...commonModules, ...architecture.modules }
  const name = hubModule(modules, module)
  if (name === undefined) return undefined
  return block === undefined ? `${name}.${kind}` : `model.layers.${Number(block)}.${name}.${kind}`
}

/** The name of a weight of a hub model in a file; undefined where the architecture has none for it. */
export function ggufName(architecture: Architecture, weight: string): string | undefined {
  const [, layer, module = '', kind = ''] = /^(?:model\.layers\.(\d{1,4})\.)?(.+)\.(weight|bias)$/.exec(weight) ?? []
  const modules = layer === undefined ? outer : { ...commonModules, ...architecture.modules }
  const found = Object.entries(modules).filter(([, name]) => name === module)
  // Where a common one has this name too, its own comes last, and is what the file has.
  const [name] = found.at(-1) ?? []
  if (name === undefined) return undefined
  return layer === undefined ? `${name}.${kind}` : `blk.${Number(layer)}.${name}.${kind}`
}

function hubModule(modules: Readonly<Record<string, string>>, name: string): string | undefined {
  return Object.hasOwn(modules, name) ? modules[name] : undefined
}

/** The architecture of a `model_type`, with its name; undefined where llama.cpp has none that is known here. */
export function architectureFor(
  modelType: string,
): { readonly name: string; readonly architecture: Architecture } | undefined {
  const found = Object.entries(architectures).find(
    ([, one]) => one.modelType === modelType || one.alike?.includes(modelType),
  )
  return found && { name: found[0], architecture: found[1] }
}

/** What the converter did to a tensor. */
export function conversionOf(architecture: Architecture, tensor: string): Omit<StoredTensor, 'name'> {
  const [, module = ''] = /^blk\.\d+\.(attn_q|attn_k)\.(?:weight|bias)$/.exec(tensor) ?? []
  const order = module === 'attn_q' ? 'queries' : module === 'attn_k' ? 'keys' : undefined
  return {
    interleaved: architecture.interleaved ? order : undefined,
    offset: tensor.endsWith('norm.weight') ? (architecture.normOffset ?? 0) : 0,
  }
}
