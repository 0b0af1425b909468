import { z } from 'zod'
import { isJsonObject } from '../../formats/json.ts'
import type { DecoderConfig, Family, LayerKind, Refuse } from '../decoder.ts'
import { checkLength, family, notADecoder, positions, positive } from './describe.ts'
import { describeGemma, gemmaFields, sandwichBlock } from './gemma2.ts'
import { normedHead } from './parts.ts'
import { parseRope, ropeFields, type RopeFields } from './rope.ts'

const perType = z.looseObject({ full_attention: ropeFields.nullish(), sliding_attention: ropeFields.nullish() })

const fields = {
  ...gemmaFields,
  max_position_embeddings: positions.default(131072),
  final_logit_softcapping: positive.nullish(),
  sliding_window_pattern: z.int().min(1).default(6),
  rope_theta: positive.default(1e6),
  rope_local_base_freq: positive.default(1e4),
  rope_parameters: perType.nullish(),
}

/**
 * Five of six layers see a window and have a rope base of their own. Newer checkpoints give rotary parameters by the type of a layer, in
 * older ones `rope_scaling` is about the layers that see everything.
 */
function gemma3Layers(
  c: z.output<z.ZodObject<typeof fields>> & { readonly rope_scaling?: RopeFields | null | undefined },
  base: DecoderConfig,
  refuse: Refuse,
): LayerKind[] {
  const given = c.rope_parameters ?? {}
  const flat = Object.entries(given).find(([, value]) => value !== null && !isJsonObject(value))
  if (flat) refuse(`rope_parameters: "${flat[0]}" is not given by the type of a layer`)
  const rope = (own: RopeFields | null | undefined, theta: number): LayerKind['rope'] =>
    parseRope(own ?? {}, { headDim: base.headDim, theta, maxPositions: base.maxPositionEmbeddings, refuse })
  const full = { rope: rope({ ...given.full_attention, ...c.rope_scaling }, c.rope_theta), window: undefined }
  const sliding = { rope: rope(given.sliding_attention, c.rope_local_base_freq), window: c.sliding_window ?? undefined }
  checkLength('layer_types', c.layer_types, base, refuse)
  return base.layers.map((_, i) => {
    const slides = c.layer_types ? c.layer_types[i] === 'sliding_attention' : (i + 1) % c.sliding_window_pattern !== 0
    if (slides && sliding.window === undefined) refuse(`layer ${i} sees a window, but sliding_window is not set`)
    return slides ? sliding : full
  })
}

/** Gemma 3, the decoder of texts: norms of each query and key, two rope bases. Gemma Team 2025. */
export const gemma3 = family({
  models: 'Gemma 3, the models of texts (270M, 1B)',
  ownRope: true,
  fields,
  describe: (c, base, refuse) => ({ ...describeGemma(c, base, refuse), layers: gemma3Layers(c, base, refuse) }),
  block: sandwichBlock({ queryKeyNorm: 'head' }),
  head: normedHead,
})

/** What transformers takes where `text_config` leaves it out, as the files of Google do. */
const textDefaults = {
  model_type: 'gemma3_text',
  vocab_size: 262208,
  hidden_size: 2304,
  intermediate_size: 9216,
  num_hidden_layers: 26,
  num_attention_heads: 8,
}

/** Gemma 3, the models of texts and images: the decoder in them, which is that of the models of texts. What sees images is left alone. */
export const gemma3WithImages: Family = {
  ...gemma3,
  models: 'Gemma 3, the models of texts and images (4B, 12B, 27B): texts alone',
  ownKeys: ['text_config'],
  describe: (json, refuse) => {
    const { text_config: text } = json
    if (!isJsonObject(text)) return refuse('"text_config" is not an object', notADecoder)
    const { model_type: type = 'gemma3_text', tie_word_embeddings: tied = true } = text
    if (type !== 'gemma3_text') refuse(`text_config: model_type ${JSON.stringify(type)} is not supported`)
    if (tied !== (json['tie_word_embeddings'] ?? true)) {
      // Versions of transformers differ in which of them counts.
      refuse(
        '"tie_word_embeddings" and that of "text_config" differ',
        'Write the same into both, false where the file has a head.',
      )
    }
    const { dtype, torch_dtype, quantization_config } = json
    const shared = { dtype, torch_dtype, quantization_config }
    return {
      ...gemma3.describe({ ...textDefaults, ...shared, ...text }, (message, hint) =>
        refuse(`text_config: ${message}`, hint),
      ),
      modelType: 'gemma3',
      trunk: 'model.language_model',
      // transformers computes the logits of these models without.
      logitCap: undefined,
    }
  },
}
