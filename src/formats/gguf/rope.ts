import { LowrankError } from '../../util/errors.ts'
import type { Rope } from '../../util/rope.ts'
import type { JsonObject } from '../json.ts'
import type { OwnEntries } from './architectures.ts'
import type { GgufContents } from './file.ts'
import type { ArchitectureKeys } from './keys.ts'

/** The rotary part of a config.json. */
export async function ropeOf(
  file: GgufContents,
  keys: ArchitectureKeys,
  { headDim, theta: fallback }: { readonly headDim: number; readonly theta: number },
): Promise<JsonObject> {
  const theta = keys.number('rope.freq_base') || fallback
  const channels = keys.number('rope.dimension_count') ?? headDim
  if (!Number.isInteger(channels) || channels < 2 || channels > headDim)
    keys.refuse('rope.dimension_count', `is ${channels}`)
  const partial = channels === headDim ? {} : { partial_rotary_factor: channels / headDim }
  const scaling = await scalingOf(file, keys, { theta, channels })
  return { rope_theta: theta, ...partial, ...(scaling === undefined ? {} : { rope_scaling: scaling }) }
}

interface Angles {
  readonly theta: number
  readonly channels: number
}

async function scalingOf(file: GgufContents, keys: ArchitectureKeys, angles: Angles): Promise<JsonObject | undefined> {
  const type = keys.text('rope.scaling.type')
  const factor = keys.number('rope.scaling.factor') || keys.number('rope.scale_linear') || 1
  const original = keys.number('rope.scaling.original_context_length')
  const grown = keys.number('rope.scaling.attn_factor') || 1
  const yarn = yarnOf(keys)
  const [own, long, short] = await Promise.all(
    ['rope_freqs.weight', 'rope_factors_long.weight', 'rope_factors_short.weight'].map((name) => factorsOf(file, name)),
  )
  if (long !== undefined && short !== undefined) {
    return { rope_type: 'longrope', short_factor: short, long_factor: long, ...longropeFactor(keys, grown, original) }
  }
  if (grown !== 1) keys.refuse('rope.scaling.attn_factor', `is ${grown}, which is not supported without rope factors`)
  if (own !== undefined) {
    if (factor !== 1) keys.refuse('rope.scaling.factor', `is ${factor}, beside factors for each frequency`)
    return factorsAsScaling(own, angles, keys)
  }
  switch (type) {
    case 'none':
      return undefined
    // llama.cpp takes a factor without a type for a linear one.
    case undefined:
    case 'linear':
      return factor === 1 ? undefined : { rope_type: 'linear', factor }
    case 'yarn':
      return {
        rope_type: 'yarn',
        factor,
        original_max_position_embeddings: original ?? keys.needed('context_length'),
        ...yarn,
      }
    default:
      return keys.refuse('rope.scaling.type', `is ${JSON.stringify(type)}, which is not supported without rope factors`)
  }
}

/** The options of YaRN; what transformers does not know of is refused. */
function yarnOf(keys: ArchitectureKeys): JsonObject {
  for (const [key, neutral] of [
    ['yarn_ext_factor', 1],
    ['yarn_attn_factor', 1],
    ['yarn_log_multiplier', 0],
    ['alpha', 0],
  ] as const) {
    const value = keys.number(`rope.scaling.${key}`) ?? neutral
    if (value !== neutral) keys.refuse(`rope.scaling.${key}`, `is ${value}, which is not supported`)
  }
  const [fast, slow] = [keys.number('rope.scaling.yarn_beta_fast'), keys.number('rope.scaling.yarn_beta_slow')]
  return { ...(fast === undefined ? {} : { beta_fast: fast }), ...(slow === undefined ? {} : { beta_slow: slow }) }
}

/** The factor of cos and sin, where it is not what follows from the lengths. */
function longropeFactor(keys: ArchitectureKeys, given: number, original: number | undefined): JsonObject {
  const longest = keys.needed('context_length')
  const stretched = longest / (original ?? longest)
  const follows = stretched <= 1 ? 1 : Math.sqrt(1 + Math.log(stretched) / Math.log(original ?? longest))
  return {
    original_max_position_embeddings: original ?? longest,
    ...(Math.abs(given - follows) < 1e-6 * follows ? {} : { attention_factor: given }),
  }
}

async function factorsOf(file: GgufContents, name: string): Promise<readonly number[] | undefined> {
  const tensor = file.tensors.get(name)
  if (tensor === undefined) return undefined
  if (tensor.type.name !== 'F32' || tensor.shape.length !== 1) {
    throw new LowrankError('model', `${file.path}: tensor "${name}" is not a list of F32`)
  }
  const { buffer } = await file.read(name)
  // The decimals that were written to the configuration, as far as f32 shows.
  return Array.from(new Float32Array(buffer), (factor) => Number(factor.toPrecision(7)))
}

/** What is written of rotary embeddings: metadata, and lists of factors as tensors of f32. */
export interface WrittenRope {
  readonly entries: OwnEntries
  readonly tensors: Readonly<Record<string, readonly number[]>>
}

/** What `ropeOf` makes the same of. What cannot be said is left out, which shows when the metadata is read again. */
export function ropeEntries({ theta, channels, scaling }: Rope): WrittenRope {
  const base: OwnEntries = { 'rope.freq_base': ['f32', theta], 'rope.dimension_count': ['u32', channels] }
  switch (scaling.type) {
    case 'linear':
      return {
        entries: {
          ...base,
          'rope.scaling.type': ['text', 'linear'],
          'rope.scaling.factor': ['f32', scaling.factor],
        },
        tensors: {},
      }
    case 'yarn':
      return {
        entries: {
          ...base,
          'rope.scaling.type': ['text', 'yarn'],
          'rope.scaling.factor': ['f32', scaling.factor],
          'rope.scaling.original_context_length': ['u32', scaling.originalMaxPositions],
          ...(scaling.betaFast === 32 ? {} : { 'rope.scaling.yarn_beta_fast': ['f32', scaling.betaFast] }),
          ...(scaling.betaSlow === 1 ? {} : { 'rope.scaling.yarn_beta_slow': ['f32', scaling.betaSlow] }),
        },
        tensors: {},
      }
    case 'llama3': {
      const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalMaxPositions: length } = scaling
      return {
        entries: base,
        tensors: { 'rope_freqs.weight': llama3Factors({ factor, low, high, length }, { theta, channels }) },
      }
    }
    case 'longrope':
      return {
        entries: {
          ...base,
          'rope.scaling.original_context_length': ['u32', scaling.originalMaxPositions],
          'rope.scaling.attn_factor': ['f32', scaling.attentionFactor],
        },
        tensors: {
          'rope_factors_long.weight': scaling.longFactor,
          'rope_factors_short.weight': scaling.shortFactor,
        },
      }
    default:
      return { entries: base, tensors: {} }
  }
}

/** What Llama 3.1 and later models have: what their factors were made from is not in the file, but the same for all of them. */
const llama3 = { low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 }

/** Factors of all frequencies: by the rule of Llama 3, if that gives them, else one by one. */
function factorsAsScaling(factors: readonly number[], angles: Angles, keys: ArchitectureKeys): JsonObject {
  const factor = Math.max(...factors)
  const { low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: length } = llama3
  const made = llama3Factors({ factor, low, high, length }, angles)
  const alike = made.length === factors.length && made.every((one, i) => Math.abs(one - (factors[i] ?? 0)) < 1e-4 * one)
  if (alike) return { rope_type: 'llama3', factor, ...llama3 }
  const original = keys.needed('context_length')
  return {
    rope_type: 'longrope',
    short_factor: factors,
    long_factor: factors,
    original_max_position_embeddings: original,
    attention_factor: 1,
  }
}

interface Llama3 {
  readonly factor: number
  readonly low: number
  readonly high: number
  /** The length that a model was trained for. */
  readonly length: number
}

/** By what each frequency is divided: long wavelengths by the factor, short ones by 1, those between by a blend. */
function llama3Factors({ factor, low, high, length }: Llama3, { theta, channels }: Angles): number[] {
  return Array.from({ length: channels / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * theta ** ((2 * i) / channels)
    if (wavelength < length / high) return 1
    if (wavelength > length / low) return factor
    const smooth = (length / wavelength - low) / (high - low)
    return 1 / ((1 - smooth) / factor + smooth)
  })
}
