import { z } from 'zod'
import { isJsonObject } from '../../formats/json.ts'
import type { Refuse, Rope, RopeScaling } from '../decoder.ts'

const positive = z.number().gt(0)
const positions = z.int().min(1).max(1e9)
/** One for each pair of channels. */
const factors = z.array(positive).max(1 << 14)

/** What `rope_scaling` and `rope_parameters` may hold, in the spelling of any version of transformers. */
export const ropeFields = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: positive.optional(),
  partial_rotary_factor: positive.max(1).optional(),
  factor: z.number().min(1).nullish(),
  low_freq_factor: positive.optional(),
  high_freq_factor: positive.optional(),
  original_max_position_embeddings: positions.optional(),
  attention_factor: positive.nullish(),
  beta_fast: positive.nullish(),
  beta_slow: positive.nullish(),
  mscale: z.number().min(0).nullish(),
  mscale_all_dim: z.number().min(0).nullish(),
  truncate: z.boolean().optional(),
  short_factor: factors.optional(),
  long_factor: factors.optional(),
})

export type RopeFields = z.output<typeof ropeFields>

/** The keys of config.json that describe rotary embeddings. */
interface RopeKeys {
  readonly rope_theta?: number | undefined
  readonly rope_scaling?: RopeFields | null | undefined
  readonly rope_parameters?: RopeFields | null | undefined
  readonly max_position_embeddings: number
}

/**
 * Newer checkpoints have `rope_parameters` with everything in it, older ones `rope_theta` and `rope_scaling`. Of a file that has both,
 * transformers takes `rope_scaling`, and does not look at the other.
 */
export function ropeFieldsOf(c: RopeKeys, refuse: Refuse): RopeFields {
  const scaled = c.rope_scaling && Object.keys(c.rope_scaling).length > 0 ? c.rope_scaling : undefined
  const fields = scaled ?? c.rope_parameters ?? {}
  const nested = Object.entries(fields).find(([, value]) => isJsonObject(value))
  if (nested) refuse(`rope parameters of their own for "${nested[0]}" layers are not supported`)
  return fields
}

interface RopeOptions {
  readonly headDim: number
  readonly theta: number
  readonly maxPositions: number
  /** Where the family rotates a part of each head: how large a part, where the fields do not say. */
  readonly partial?: number | undefined
  readonly refuse: Refuse
}

/** The kinds of scaling that are computed. */
export const ropeTypes = [
  'default',
  'linear',
  'dynamic',
  'llama3',
  'yarn',
  'longrope',
] as const satisfies readonly RopeScaling['type'][]

/** Reads the fields of one kind of layer. */
export function parseRope(fields: RopeFields, { headDim, theta, maxPositions, partial, refuse }: RopeOptions): Rope {
  const rotated = fields.partial_rotary_factor ?? partial ?? 1
  if (partial === undefined && rotated !== 1) {
    refuse(`partial_rotary_factor ${rotated} is not supported: heads are rotated as a whole`)
  }
  const channels = Math.floor(headDim * rotated)
  if (channels < 2 || channels % 2 !== 0)
    refuse(`${channels} channels of a head are rotated; it must be an even number`)
  const scaling = parseScaling(fields, { channels, maxPositions, refuse })
  return { theta: fields.rope_theta ?? theta, channels, scaling }
}

function parseScaling(
  fields: RopeFields,
  {
    channels,
    maxPositions,
    refuse,
  }: { readonly channels: number; readonly maxPositions: number; readonly refuse: Refuse },
): RopeScaling {
  const type = fields.rope_type ?? fields.type ?? 'default'
  const needed = <T>(name: string, value: T | null | undefined): T =>
    value ?? refuse(`rope scaling of type "${type}" needs ${name}`)
  // As transformers does where it is left out.
  const originalMaxPositions = fields.original_max_position_embeddings ?? maxPositions
  const stretched = (): number => fields.factor ?? maxPositions / originalMaxPositions
  switch (type) {
    case 'default':
      return { type }
    case 'linear':
      return { type, factor: needed('factor', fields.factor) }
    case 'dynamic':
      return { type, factor: needed('factor', fields.factor), maxPositions }
    case 'llama3': {
      const low = needed('low_freq_factor', fields.low_freq_factor)
      const high = needed('high_freq_factor', fields.high_freq_factor)
      if (low >= high) refuse(`rope scaling: low_freq_factor ${low} must be below high_freq_factor ${high}`)
      const factor = needed('factor', fields.factor)
      return { type, factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalMaxPositions }
    }
    case 'yarn': {
      const [factor, betaFast, betaSlow] = [stretched(), fields.beta_fast ?? 32, fields.beta_slow ?? 1]
      const { mscale, mscale_all_dim: all, truncate = true } = fields
      const grown = (by: number): number => (factor <= 1 ? 1 : 0.1 * by * Math.log(factor) + 1)
      const attentionFactor = fields.attention_factor ?? (mscale && all ? grown(mscale) / grown(all) : grown(1))
      return { type, factor, betaFast, betaSlow, originalMaxPositions, truncate, attentionFactor }
    }
    case 'longrope': {
      const [shortFactor, longFactor] = (['short_factor', 'long_factor'] as const).map((name) => {
        const list = needed(name, fields[name])
        if (list.length === channels / 2) return list
        return refuse(
          `rope scaling: ${name} has ${list.length} entries, but ${channels / 2} pairs of channels are rotated`,
        )
      }) as [number[], number[]]
      const factor = stretched()
      const grown = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(originalMaxPositions))
      const attentionFactor = fields.attention_factor ?? grown
      return { type, shortFactor, longFactor, originalMaxPositions, attentionFactor }
    }
    default:
      return refuse(`rope scaling of type "${type}" is not supported (supported: ${ropeTypes.join(', ')})`)
  }
}
