import type { Dim } from '../graph/dims.ts'
import type { Value } from '../graph/value.ts'
import type { FloatDtype } from '../util/dtype.ts'
import type { PromisedQuantization } from './bitsandbytes/config.ts'

/*
 * The seam between what describes a decoder, what computes one, and the families: it imports none of them.
 */

/** The `model_type`s that are computed; each has a line in `families/index.ts`. */
export type FamilyName = 'llama'

/** Rotary embedding: the base, and how positions beyond the trained length are handled. */
export interface Rope {
  readonly theta: number
  readonly scaling:
    | { readonly type: 'default' }
    | { readonly type: 'linear'; readonly factor: number }
    | {
        readonly type: 'llama3'
        readonly factor: number
        readonly lowFrequencyFactor: number
        readonly highFrequencyFactor: number
        readonly originalMaxPositions: number
      }
}

/** A decoder as `config.json` describes it; names are those of the file in camelCase. */
export interface DecoderConfig {
  readonly modelType: FamilyName
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly numHiddenLayers: number
  readonly numAttentionHeads: number
  readonly numKeyValueHeads: number
  readonly headDim: number
  readonly vocabSize: number
  readonly maxPositionEmbeddings: number
  readonly rmsNormEps: number
  readonly rope: Rope
  readonly tieWordEmbeddings: boolean
  readonly attentionBias: boolean
  readonly mlpBias: boolean
  /** Probability with which training drops an attention weight. Training refuses any but 0; elsewhere it changes nothing. */
  readonly attentionDropout: number
  /** How the weights are stored, or are to be, where they are random. */
  readonly dtype: FloatDtype
  /** Standard deviation of random initial weights. */
  readonly initializerRange: number
  /** How the weights of the checkpoint are quantized; undefined where they are not. */
  readonly quantization: PromisedQuantization | undefined
}

/** What a block computes with besides its input. */
export interface BlockContext {
  /** Per position of each row, since packed rows restart with each example: [batch, seq, headDim / 2] each. */
  readonly cos: Value
  readonly sin: Value
  /** Attention goes through its queries in parts, so that early ones skip the late keys: their lengths, i64 [parts]. */
  readonly sizes: Value
  readonly parts: readonly AttentionPart[]
  /**
   * The positions (b * seq + t) whose result is wanted, i64 [rows]: of the last block only those that predict a label. Undefined: all.
   */
  readonly rows: Value | undefined
}

/** The queries of one part and the keys they may see. */
export interface AttentionPart {
  /** How many queries, and how many keys: all up to the last of the queries. */
  readonly queries: Dim
  readonly keys: Dim
  /** Lengths of the keys seen and of those after, i64 [2]; undefined for the last part, which sees all. */
  readonly cut: Value | undefined
  /** Added to scores: 0 where a query may look, very negative elsewhere. One for all rows or one for each, [1|batch, 1, 1, queries, keys]. */
  readonly mask: Value
}

/** A linear layer as the checkpoint names it, relative to its block: weight [outFeatures, inFeatures]. */
export interface LinearSpec {
  readonly module: string
  readonly inFeatures: number
  readonly outFeatures: number
  readonly bias: boolean
}

/** A decoder family: its computation, written once over symbolic tensors, and the names of its weights. */
export interface Decoder {
  /** Linear layers of a block. */
  linears(config: DecoderConfig): readonly LinearSpec[]
  /** One block: x [batch, seq, hidden] -> the same shape, or [rows, hidden] where only some positions are wanted. */
  block(layers: Layers, config: DecoderConfig, x: Value, context: BlockContext): Value
  /** Rows [n, hidden] after the last block -> logits [n, vocabulary]. */
  head(layers: Layers, config: DecoderConfig, rows: Value): Value
}

/** Where a decoder gets its weights from. Adapters are made by wrapping one (`lora.ts`). */
export interface Layers {
  /** A weight, as f32. */
  parameter(name: string, shape: readonly number[]): Value
  /** x [..., in] -> [..., outFeatures]. */
  linear(module: string, x: Value, options: { readonly outFeatures: number; readonly bias: boolean }): Value
}
