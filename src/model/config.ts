import { join } from 'node:path'
import leven from 'leven'
import { z } from 'zod'
import { editJson } from '../formats/json-edit.ts'
import { isJsonObject, type JsonObject, readJsonObject } from '../formats/json.ts'
import { listModelFolder, modelFolderHint } from '../formats/model-folder.ts'
import { type FloatDtype, torchNames } from '../util/dtype.ts'
import { LowrankError } from '../util/errors.ts'
import type { DecoderConfig, FamilyName, Rope } from './decoder.ts'
import { families } from './families/index.ts'
import { foreignKey } from './families/foreign-keys.ts'
import { parseQuantizationConfig, useFloats } from './bitsandbytes/config.ts'

// Bounds far beyond any real model, so that a hostile file cannot ask for absurd allocations.
const size = (max: number): z.ZodNumber => z.int().min(1).max(max)
const positive = z.number().gt(0)

const ropeFields = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: positive.optional(),
  factor: z.number().min(1).optional(),
  low_freq_factor: positive.optional(),
  high_freq_factor: positive.optional(),
  original_max_position_embeddings: size(1e9).optional(),
  partial_rotary_factor: positive.optional(),
})

const schema = z.object({
  model_type: z.string(),
  hidden_act: z.string().default('silu'),
  hidden_size: size(1 << 20),
  intermediate_size: size(1 << 22),
  num_hidden_layers: size(4096),
  num_attention_heads: size(4096),
  num_key_value_heads: size(4096).nullish(),
  head_dim: size(1 << 14).nullish(),
  vocab_size: size(1 << 24),
  max_position_embeddings: size(1e9).default(2048),
  rms_norm_eps: positive.default(1e-6),
  rope_theta: positive.default(10000),
  rope_scaling: ropeFields.nullish(),
  rope_parameters: ropeFields.nullish(),
  tie_word_embeddings: z.boolean().default(false),
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
  attention_dropout: z.number().min(0).lt(1).default(0),
  initializer_range: z.number().min(0).default(0.02),
  dtype: z.string().nullish(),
  torch_dtype: z.string().nullish(),
  quantization_config: z.unknown().optional(),
  quantization: z.unknown().optional(),
})

const dtypes = Object.fromEntries(Object.entries(torchNames).map(([dtype, name]) => [name, dtype as FloatDtype]))

/** Reads and checks `config.json` of a model folder. */
export async function readDecoderConfig(folder: string): Promise<DecoderConfig> {
  await listModelFolder(folder)
  const file = join(folder, 'config.json')
  return parseDecoderConfig(await readJsonObject(file, { code: 'model', hint: modelFolderHint }), file)
}

/** `file` is named in errors only. */
export function parseDecoderConfig(json: unknown, file: string): DecoderConfig {
  const refuse = (message: string, hint?: string): never => {
    throw new LowrankError('model', `${file}: ${message}`, { hint })
  }
  const parsed = schema.safeParse(json)
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'the file'}: ${issue.message}`)
    return refuse(problems.join('; '), 'The file must be the config.json of a decoder as the model hub has it.')
  }
  const c = parsed.data
  const known = Object.keys(families) as FamilyName[]
  const modelType = known.find((name) => name === c.model_type)
  if (modelType === undefined) {
    const near = known.find((name) => leven(name, c.model_type) <= 2)
    return refuse(
      `model_type "${c.model_type}" is not supported (supported: ${known.join(', ')})`,
      near === undefined ? undefined : `Did you mean "${near}"?`,
    )
  }
  // transformers knows the same function by two names.
  if (c.hidden_act !== 'silu' && c.hidden_act !== 'swish') {
    refuse(`hidden_act "${c.hidden_act}" is not supported for ${modelType}; it must be "silu"`)
  }
  if (c.quantization !== undefined && c.quantization !== null) {
    refuse('"quantization" is what mlx-lm writes beside weights that it quantized, which are not supported', useFloats)
  }
  const foreign = foreignKey(json as JsonObject)
  if (foreign !== undefined) refuse(`${foreign} is not supported: model_type "${modelType}" is computed without it`)
  const kvHeads = c.num_key_value_heads ?? c.num_attention_heads
  if (c.num_attention_heads % kvHeads !== 0) {
    refuse(`num_attention_heads ${c.num_attention_heads} is not a multiple of num_key_value_heads ${kvHeads}`)
  }
  const headDim = c.head_dim ?? c.hidden_size / c.num_attention_heads
  if (!Number.isInteger(headDim) || headDim % 2 !== 0) {
    refuse(`a head has ${headDim} channels (head_dim, or hidden_size / num_attention_heads); it must be an even number`)
  }
  return {
    modelType,
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    numHiddenLayers: c.num_hidden_layers,
    numAttentionHeads: c.num_attention_heads,
    numKeyValueHeads: kvHeads,
    headDim,
    vocabSize: c.vocab_size,
    maxPositionEmbeddings: c.max_position_embeddings,
    rmsNormEps: c.rms_norm_eps,
    rope: parseRope(c, refuse),
    tieWordEmbeddings: c.tie_word_embeddings,
    attentionBias: c.attention_bias,
    mlpBias: c.mlp_bias,
    attentionDropout: c.attention_dropout,
    dtype: dtypes[(c.dtype ?? c.torch_dtype ?? '').replace(/^torch\./, '')] ?? 'F32',
    initializerRange: c.initializer_range,
    quantization: parseQuantizationConfig(c.quantization_config, refuse),
  }
}

/**
 * Newer checkpoints have `rope_parameters` with everything in it, older ones `rope_theta` and `rope_scaling`. Of a file that has both,
 * transformers takes `rope_scaling`, and does not look at the other.
 */
function parseRope(c: z.infer<typeof schema>, refuse: (message: string, hint?: string) => never): Rope {
  const scaled = c.rope_scaling && Object.keys(c.rope_scaling).length > 0 ? c.rope_scaling : undefined
  const fields = scaled ?? c.rope_parameters ?? {}
  const theta = fields.rope_theta ?? c.rope_theta
  const nested = Object.entries(fields).find(([, value]) => isJsonObject(value))
  if (nested) refuse(`rope parameters of their own for "${nested[0]}" layers are not supported`)
  const rotated = fields.partial_rotary_factor ?? 1
  if (rotated !== 1) refuse(`partial_rotary_factor ${rotated} is not supported: heads are rotated as a whole`)
  const type = fields.rope_type ?? fields.type ?? 'default'
  const field = (name: keyof typeof fields): number => {
    const value = fields[name]
    return typeof value === 'number' ? value : refuse(`rope scaling of type "${type}" needs ${name}`)
  }
  switch (type) {
    case 'default':
      return { theta, scaling: { type } }
    case 'linear':
      return { theta, scaling: { type, factor: field('factor') } }
    case 'llama3': {
      const [low, high] = [field('low_freq_factor'), field('high_freq_factor')]
      if (low >= high) refuse(`rope scaling: low_freq_factor ${low} must be below high_freq_factor ${high}`)
      return {
        theta,
        scaling: {
          type,
          factor: field('factor'),
          lowFrequencyFactor: low,
          highFrequencyFactor: high,
          // As transformers does where it is left out.
          originalMaxPositions: fields.original_max_position_embeddings ?? c.max_position_embeddings,
        },
      }
    }
    default:
      return refuse(`rope scaling of type "${type}" is not supported (supported: default, linear, llama3)`)
  }
}

/** The text of a config.json, without its promise that the head is the embedding. */
export function untied(text: string): string {
  const { tie_word_embeddings: tied } = JSON.parse(text) as JsonObject
  return tied === true ? editJson(text, { tie_word_embeddings: false }) : text
}
