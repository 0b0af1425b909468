import { LowrankError } from '../../util/errors.ts'
import type { JsonObject } from '../json.ts'
import { type Architecture, architectureFor, architectures, type Computed, type OwnEntries } from './architectures.ts'
import type { GgufContents } from './file.ts'
import { ArchitectureKeys } from './keys.ts'
import { ropeEntries, ropeOf, type WrittenRope } from './rope.ts'
import type { TypedMetadata, TypedValue } from './values.ts'

/** The architecture of a file. */
export function architectureOf({ path, metadata }: GgufContents): Architecture {
  const { architecture } = new ArchitectureKeys(metadata)
  const parts = metadata.number('split.count') ?? 1
  if (parts > 1) {
    throw new LowrankError('model', `${path} is one of ${parts} parts of a model, which is not supported`, {
      hint: 'Join them with "llama-gguf-split --merge" of llama.cpp, and name the whole file.',
    })
  }
  const known = Object.hasOwn(architectures, architecture) ? architectures[architecture] : undefined
  if (known !== undefined) return known
  throw new LowrankError(
    'model',
    `${path}: general.architecture "${architecture}" is not supported (supported: ${Object.keys(architectures).join(', ')})`,
  )
}

/**
 * The config.json of the hub model that a file was made from, as far as the file says: what it computes is the same.
 *
 * @throws LowrankError `model`: an architecture, or metadata, that is not computed, by its name.
 */
export async function configOf(file: GgufContents): Promise<JsonObject> {
  const architecture = architectureOf(file)
  const { metadata, tensors } = file
  const keys = new ArchitectureKeys(metadata)
  const has = (tensor: string): boolean => tensors.has(tensor)
  const [hiddenSize, heads, layers] = [
    keys.needed('embedding_length'),
    keys.needed('attention.head_count'),
    keys.needed('block_count'),
  ]
  // It decides how long lists are; other bounds are those of every configuration.
  if (!Number.isInteger(layers) || layers < 1 || layers > 4096) keys.refuse('block_count', `is ${layers}`)
  const headDim = keys.uniform('attention.key_length') ?? hiddenSize / heads
  const values = keys.uniform('attention.value_length') ?? headDim
  if (values !== headDim) keys.refuse('attention.value_length', `is ${values}, but that of keys is ${headDim}`)
  if (keys.flag('attention.causal') === false) keys.refuse('attention.causal', 'is false: it is not a decoder')
  const { shape: [vocabulary] = [], type } = tensors.get('token_embd.weight') ?? {}
  const config = {
    model_type: architecture.modelType,
    hidden_size: hiddenSize,
    intermediate_size: keys.needed('feed_forward_length'),
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: keys.uniform('attention.head_count_kv') ?? heads,
    head_dim: headDim,
    vocab_size: metadata.needed('token_embd.weight', vocabulary),
    max_position_embeddings: keys.needed('context_length'),
    rms_norm_eps: keys.needed('attention.layer_norm_rms_epsilon'),
    ...(await ropeOf(file, keys, { headDim, theta: architecture.ropeTheta ?? 1e4 })),
    ...architecture.describe?.({ keys, layers, hiddenSize, heads, headDim, has }),
    tie_word_embeddings: !has('output.weight'),
    torch_dtype: type?.name === 'BF16' ? 'bfloat16' : type?.name === 'F16' ? 'float16' : 'float32',
    ...idsOf(file),
  }
  keys.refuseOthers()
  return config
}

/** What a file says of a decoder. */
export interface WrittenConfig {
  /** The name of the architecture. */
  readonly name: string
  readonly architecture: Architecture
  readonly metadata: TypedMetadata
  /** Lists of numbers that are tensors of f32. */
  readonly tensors: WrittenRope['tensors']
}

/**
 * The metadata of a decoder, of which `configOf` makes one that is computed alike; whether it does, the caller has to see: not everything
 * can be said. Undefined where llama.cpp has no architecture for it that is known here.
 */
export function writtenConfig(decoder: Computed): WrittenConfig | undefined {
  const found = architectureFor(decoder.modelType)
  if (found === undefined) return undefined
  const { name, architecture } = found
  // Layers that see everything come first: others may have a base of their own, which is another entry.
  const rope = decoder.layers.toSorted((a, b) => (a.window ?? 0) - (b.window ?? 0)).find((layer) => layer.rope)?.rope
  const { entries: angles, tensors } = rope === undefined ? { entries: {}, tensors: {} } : ropeEntries(rope)
  const count = (value: number): TypedValue => ['u32', value]
  const own: OwnEntries = {
    vocab_size: count(decoder.vocabSize),
    context_length: count(decoder.maxPositionEmbeddings),
    embedding_length: count(decoder.hiddenSize),
    block_count: count(decoder.numHiddenLayers),
    feed_forward_length: count(decoder.intermediateSize),
    'attention.head_count': count(decoder.numAttentionHeads),
    'attention.head_count_kv': count(decoder.numKeyValueHeads),
    'attention.key_length': count(decoder.headDim),
    'attention.value_length': count(decoder.headDim),
    'attention.layer_norm_rms_epsilon': ['f32', decoder.rmsNormEps],
    ...angles,
    ...architecture.entries?.(decoder),
  }
  const named = Object.entries(own).flatMap(([key, value]) => (value === undefined ? [] : [[`${name}.${key}`, value]]))
  return {
    name,
    architecture,
    metadata: { 'general.architecture': ['text', name], ...(Object.fromEntries(named) as TypedMetadata) },
    tensors,
  }
}

/** The generation_config.json: what ends a text, the turn of a conversation included. */
export function generationConfigOf(file: GgufContents): JsonObject {
  const { eos_token_id: eos, ...others } = idsOf(file)
  const turns = endKeys.map((key) => file.metadata.count(`tokenizer.ggml.${key}`))
  const ends = [...new Set([eos, ...turns].filter((id) => id !== undefined))]
  return { ...others, ...(ends.length === 0 ? {} : { eos_token_id: ends.length === 1 ? ends[0] : ends }) }
}

/** Keys of ids that end a text besides EOS: the end of a turn, and of a message to a tool. */
export const endKeys: readonly string[] = ['eot_token_id', 'eom_token_id']

/** The tokens with a role, by their ids. */
function idsOf({ metadata }: GgufContents): JsonObject {
  const ids = { bos: 'bos', eos: 'eos', pad: 'padding' }
  const found = Object.entries(ids).map(([role, name]) => [
    `${role}_token_id`,
    metadata.count(`tokenizer.ggml.${name}_token_id`),
  ])
  return Object.fromEntries(found.filter(([, id]) => id !== undefined))
}
