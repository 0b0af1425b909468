/** Rotary embedding: the base, how many channels of a head are rotated, and how positions beyond the trained length are handled. */
export interface Rope {
  readonly theta: number
  /** The first so many channels of a head; an even number. */
  readonly channels: number
  readonly scaling: RopeScaling
}

/** As in transformers' `modeling_rope_utils.py`. Where `attentionFactor` is given, cos and sin are multiplied by it. */
export type RopeScaling =
  | { readonly type: 'default' }
  | { readonly type: 'linear'; readonly factor: number }
  /** Changes with the length of an example, beyond `maxPositions`. */
  | { readonly type: 'dynamic'; readonly factor: number; readonly maxPositions: number }
  | {
      readonly type: 'llama3'
      readonly factor: number
      readonly lowFrequencyFactor: number
      readonly highFrequencyFactor: number
      readonly originalMaxPositions: number
    }
  | {
      readonly type: 'yarn'
      readonly factor: number
      readonly betaFast: number
      readonly betaSlow: number
      readonly originalMaxPositions: number
      readonly truncate: boolean
      readonly attentionFactor: number
    }
  /** Factors [channels / 2]: the long ones for examples of more than `originalMaxPositions` tokens. */
  | {
      readonly type: 'longrope'
      readonly shortFactor: readonly number[]
      readonly longFactor: readonly number[]
      readonly originalMaxPositions: number
      readonly attentionFactor: number
    }

/** How a layer sees positions. */
export interface LayerKind {
  /** Undefined: it knows of no positions. */
  readonly rope: Rope | undefined
  /** Keys that a query sees, its own included; undefined: all up to its own. */
  readonly window: number | undefined
}
