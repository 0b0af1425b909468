import { z } from 'zod'
import { dropoutOf, family, positions, positive, windowedLayers } from './describe.ts'
import { normedHead, preNormBlock } from './parts.ts'
import { parseRope, ropeFieldsOf } from './rope.ts'

/** Earlier names of one kind of scaling, and one that Phi 3 had by mistake. */
const longrope = new Set(['su', 'yarn'])

/** Phi 3, 3.5 and 4: Llama with fused projections, of whose heads a part may be rotated. Abdin et al. 2024. */
export const phi3 = family({
  models: 'Phi 3, Phi 3.5 mini, Phi 4, Phi 4 mini',
  ownRope: true,
  fields: {
    max_position_embeddings: positions.default(4096),
    original_max_position_embeddings: positions.default(4096),
    rms_norm_eps: positive.default(1e-5),
    sliding_window: positions.nullish(),
    partial_rotary_factor: positive.max(1).default(1),
    resid_pdrop: z.number().min(0).lt(1).nullish(),
  },
  describe: (c, base, refuse) => {
    const given = ropeFieldsOf(c, refuse)
    const type = given.rope_type ?? given.type ?? 'default'
    const rope = parseRope(
      {
        ...given,
        rope_type: longrope.has(type) ? 'longrope' : type,
        // That of the file itself counts before that of the rope parameters, as in transformers.
        original_max_position_embeddings: c.original_max_position_embeddings,
      },
      {
        headDim: base.headDim,
        theta: c.rope_theta,
        maxPositions: base.maxPositionEmbeddings,
        partial: c.partial_rotary_factor,
        refuse,
      },
    )
    if (rope.scaling.type !== 'default' && rope.scaling.type !== 'longrope') {
      refuse(`rope scaling of type "${type}" is not supported for phi3 (supported: default, longrope)`)
    }
    const everywhere = { rope, window: undefined }
    const layers = base.layers.map(() => everywhere)
    const slides = (): boolean => c.sliding_window !== null && c.sliding_window !== undefined
    return {
      layers: windowedLayers({ ...base, layers }, { window: c.sliding_window, types: null, slides }, refuse),
      dropout: base.dropout ?? dropoutOf({ resid_pdrop: c.resid_pdrop }),
    }
  },
  block: preNormBlock({ fused: true }),
  head: normedHead,
})
