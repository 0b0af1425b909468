import { z } from 'zod'
import type { JsonObject } from '../../formats/json.ts'
import type { Activation } from '../../graph/value.ts'
import { type FloatDtype, torchNames } from '../../util/dtype.ts'
import { parseQuantizationConfig } from '../bitsandbytes/config.ts'
import type { DecoderConfig, Family, FamilyName, LayerKind, Refuse } from '../decoder.ts'
import { foreignKey } from './foreign-keys.ts'
import { lastNorm } from './parts.ts'
import { parseRope, ropeFields, ropeFieldsOf } from './rope.ts'

// Bounds far beyond any real model, so that a hostile file cannot ask for absurd allocations.
export const size = (max: number): z.ZodNumber => z.int().min(1).max(max)
export const positive = z.number().gt(0)
export const heads = size(4096)
export const headDim = size(1 << 14)
export const positions = size(1e9)

/** What all families have, with the defaults of transformers; null is what was left out. */
const common = {
  model_type: z.string(),
  hidden_act: z.string().default('silu'),
  hidden_size: size(1 << 20),
  intermediate_size: size(1 << 22),
  num_hidden_layers: size(4096),
  num_attention_heads: heads,
  num_key_value_heads: heads.nullish(),
  head_dim: headDim.nullish(),
  vocab_size: size(1 << 24),
  max_position_embeddings: positions.default(2048),
  rms_norm_eps: positive.default(1e-6),
  rope_theta: positive.default(10000),
  rope_scaling: ropeFields.nullish(),
  rope_parameters: ropeFields.nullish(),
  tie_word_embeddings: z.boolean().default(false),
  attention_dropout: z.number().min(0).lt(1).nullish(),
  initializer_range: z.number().min(0).default(0.02),
  dtype: z.string().nullish(),
  torch_dtype: z.string().nullish(),
  quantization_config: z.unknown().optional(),
}

type Shape = z.core.$ZodLooseShape
type Common = z.output<z.ZodObject<typeof common>>
type Fields<S extends Shape> = Omit<Common, keyof S> & z.output<z.ZodObject<S>>

/** A family from its own keys of config.json, and what they change of a description that knows the common ones. */
export function family<S extends Shape>(
  parts: Pick<Family, 'models' | 'block' | 'head'> & {
    readonly fields: S
    readonly describe?: (c: Fields<S>, base: DecoderConfig, refuse: Refuse) => Partial<DecoderConfig>
    /** Whether rotary embeddings are read by `describe`, and not alike for all layers. */
    readonly ownRope?: true
  },
): Family {
  const schema = z.object({ ...common, ...parts.fields })
  const keys = new Set(Object.keys(schema.shape))
  return {
    models: parts.models,
    block: parts.block,
    hidden: lastNorm,
    head: parts.head,
    ownKeys: Object.keys(parts.fields).filter((key) => !(key in common)),
    describe: (json, refuse) => {
      const parsed = schema.safeParse(json)
      if (!parsed.success) return refuse(...problemsOf(parsed.error))
      const c = parsed.data as unknown as Fields<S> & Common
      const base = describeCommon(c, refuse, parts.ownRope === true)
      const described = { ...base, ...parts.describe?.(c, base, refuse) }
      const foreign = foreignKey(json, keys)
      if (foreign !== undefined) {
        refuse(`${foreign} is not supported: model_type "${c.model_type}" is computed without it`)
      }
      return described
    },
  }
}

/** Which `model_type` a config.json has, before anything else is known of it. */
export function modelTypeOf(json: JsonObject, refuse: Refuse): string {
  const parsed = z.object({ model_type: z.string() }).safeParse(json)
  return parsed.success ? parsed.data.model_type : refuse(...problemsOf(z.object(common).safeParse(json).error))
}

export const notADecoder = 'The file must be the config.json of a decoder as the model hub has it.'

function problemsOf(error: z.ZodError | undefined): [string, string] {
  const problems = error?.issues.map((issue) => `${issue.path.join('.') || 'the file'}: ${issue.message}`) ?? []
  return [problems.join('; '), notADecoder]
}

function describeCommon(c: Common, refuse: Refuse, ownRope: boolean): DecoderConfig {
  const kvHeads = c.num_key_value_heads ?? c.num_attention_heads
  if (c.num_attention_heads % kvHeads !== 0) {
    refuse(`num_attention_heads ${c.num_attention_heads} is not a multiple of num_key_value_heads ${kvHeads}`)
  }
  const width = c.head_dim ?? c.hidden_size / c.num_attention_heads
  if (!Number.isInteger(width) || width % 2 !== 0) {
    refuse(`a head has ${width} channels (head_dim, or hidden_size / num_attention_heads); it must be an even number`)
  }
  const rope = ownRope
    ? undefined
    : parseRope(ropeFieldsOf(c, refuse), {
        headDim: width,
        theta: c.rope_theta,
        maxPositions: c.max_position_embeddings,
        refuse,
      })
  return {
    modelType: c.model_type as FamilyName,
    trunk: 'model',
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    numHiddenLayers: c.num_hidden_layers,
    numAttentionHeads: c.num_attention_heads,
    numKeyValueHeads: kvHeads,
    headDim: width,
    vocabSize: c.vocab_size,
    maxPositionEmbeddings: c.max_position_embeddings,
    layers: new Array<LayerKind>(c.num_hidden_layers).fill({ rope, window: undefined }),
    activation: activationOf('hidden_act', c.hidden_act, refuse),
    rmsNormEps: c.rms_norm_eps,
    normOffset: 0,
    biases: { qkv: false, output: false, mlp: false },
    attentionScale: 1 / Math.sqrt(width),
    scoreCap: undefined,
    logitCap: undefined,
    embeddingScale: 1,
    multipliers: { input: 1, residual: 1, logits: 1 },
    tieWordEmbeddings: c.tie_word_embeddings,
    dropout: dropoutOf({ attention_dropout: c.attention_dropout }),
    dtype: dtypes[(c.dtype ?? c.torch_dtype ?? '').replace(/^torch\./, '')] ?? 'F32',
    initializerRange: c.initializer_range,
    quantization: parseQuantizationConfig(c.quantization_config, refuse),
  }
}

const dtypes = Object.fromEntries(Object.entries(torchNames).map(([dtype, name]) => [name, dtype as FloatDtype]))

/** Names as transformers has them; it knows some functions by two. */
export const activations: Readonly<Record<string, Activation>> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_pytorch_tanh: 'gelu_tanh',
  gelu_new: 'gelu_tanh',
}

export function activationOf(key: string, name: string, refuse: Refuse): Activation {
  return (
    activations[name] ?? refuse(`${key} "${name}" is not supported (supported: ${Object.keys(activations).join(', ')})`)
  )
}

/** The first that drops anything. */
export function dropoutOf(given: Readonly<Record<string, number | null | undefined>>): DecoderConfig['dropout'] {
  const found = Object.entries(given).find(([, p]) => typeof p === 'number' && p > 0)
  return found && { key: found[0], p: found[1] ?? 0 }
}

/** `attention_bias` is about all four projections of attention. */
export const attentionBias = z.boolean().default(false)

/** The kinds of layers that `layer_types` may name. */
export const layerTypes = z.array(z.enum(['full_attention', 'sliding_attention'])).nullish()

/** Layers of which some see a window only: those that `types` names, or, where it is left out, that `slides` is true of. */
export function windowedLayers(
  base: DecoderConfig,
  given: {
    readonly window: number | null | undefined
    readonly types: readonly string[] | null | undefined
    readonly slides: (layer: number) => boolean
  },
  refuse: Refuse,
): LayerKind[] {
  const { window, types, slides } = given
  checkLength('layer_types', types, base, refuse)
  const kinds = new Map<LayerKind, LayerKind>()
  return base.layers.map((kind, i) => {
    if (types ? types[i] !== 'sliding_attention' : !slides(i)) return kind
    if (window === null || window === undefined) {
      return refuse(`layer_types: layer ${i} is "sliding_attention", but sliding_window is not set`)
    }
    const sliding = kinds.get(kind) ?? { ...kind, window }
    kinds.set(kind, sliding)
    return sliding
  })
}

/** Checks that a list has an entry for each layer. */
export function checkLength(
  key: string,
  list: readonly unknown[] | null | undefined,
  { numHiddenLayers }: DecoderConfig,
  refuse: Refuse,
): void {
  if (list && list.length !== numHiddenLayers) {
    refuse(`${key} has ${list.length} entries, but num_hidden_layers is ${numHiddenLayers}`)
  }
}
