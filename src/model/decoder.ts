import type { Activation, Value } from '../graph/value.ts'
import type { JsonObject } from '../formats/json.ts'
import type { FloatDtype } from '../util/dtype.ts'
import type { LayerKind } from '../util/rope.ts'
import type { PromisedQuantization } from './bitsandbytes/config.ts'

export type { LayerKind, Rope, RopeScaling } from '../util/rope.ts'

/*
 * The seam between what describes a decoder, what computes one, and the families: it imports none of them.
 */

/** The `model_type`s that are computed; each has a line in `families/index.ts`. */
export type FamilyName =
  | 'llama'
  | 'mistral'
  | 'qwen2'
  | 'qwen3'
  | 'gemma2'
  | 'gemma3_text'
  | 'gemma3'
  | 'phi3'
  | 'smollm3'
  | 'olmo2'
  | 'granite'

/** A decoder as `config.json` describes it; what a family does not have is at the value that changes nothing. */
export interface DecoderConfig {
  readonly modelType: FamilyName
  /** Path of the decoder without its head among the modules of the model: another where it is the part for texts of a larger one. */
  readonly trunk: 'model' | 'model.language_model'
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly numHiddenLayers: number
  readonly numAttentionHeads: number
  readonly numKeyValueHeads: number
  readonly headDim: number
  readonly vocabSize: number
  readonly maxPositionEmbeddings: number
  /** One for each layer; layers of one kind share the object. */
  readonly layers: readonly LayerKind[]
  readonly activation: Activation
  readonly rmsNormEps: number
  /** What is added to the weights of norms: 1 where they are stored around zero. */
  readonly normOffset: number
  /** Which linear layers have a bias: those of queries, keys and values; that after attention; those of the MLP. */
  readonly biases: { readonly qkv: boolean; readonly output: boolean; readonly mlp: boolean }
  /** By what the products of queries and keys are multiplied. */
  readonly attentionScale: number
  /** Bounds to which scores and logits are bent, cap tanh(x / cap); undefined: none. */
  readonly scoreCap: number | undefined
  readonly logitCap: number | undefined
  /** By what the embedding multiplies its rows. */
  readonly embeddingScale: number
  /** Factors of what the first block is given, of what a block adds, and of the logits. */
  readonly multipliers: { readonly input: number; readonly residual: number; readonly logits: number }
  readonly tieWordEmbeddings: boolean
  /** Probability with which training drops something that PEFT would drop too. Training refuses any but 0; elsewhere it changes nothing. */
  readonly dropout: { readonly key: string; readonly p: number } | undefined
  /** How the weights are stored, or are to be, where they are random. */
  readonly dtype: FloatDtype
  /** Standard deviation of random initial weights. */
  readonly initializerRange: number
  /** How the weights of the checkpoint are quantized; undefined where they are not. */
  readonly quantization: PromisedQuantization | undefined
}

/** What a block computes with besides its input. */
export interface BlockContext {
  /** Per position of each row, since packed rows restart with each example: [batch, seq, channels / 2] each. Undefined: no positions. */
  readonly rope: { readonly cos: Value; readonly sin: Value } | undefined
  readonly attend: Attend
  /**
   * The positions (b * seq + t) whose result is wanted, i64 [rows]: of the last block only those that predict a label. Undefined: all.
   */
  readonly rows: Value | undefined
}

/**
 * softmax(Q KT * scale + mask) V: queries [batch, kv heads, group, seq, d], keys and values [batch, kv heads, seq, d] -> the shape of the
 * queries. Which keys a query sees, those of a cache among them, is for the context to know.
 */
export type Attend = (queries: Value, keys: Value, values: Value) => Value

/**
 * A decoder family: how it is described, and its computation, written once over symbolic tensors. Which weights it has is found by writing
 * it over `Layers` that note what is asked for (`weight-specs.ts`).
 */
export interface Family {
  /** Models that are of it, in words. */
  readonly models: string
  /** Keys of config.json that it knows and not every family has. */
  readonly ownKeys: readonly string[]
  /** @throws LowrankError by way of `refuse`: what is asked for is not computed. */
  describe(json: JsonObject, refuse: Refuse): DecoderConfig
  /** One block: x [batch, seq, hidden] -> the same shape, or [rows, hidden] where only some positions are wanted. */
  block(layers: Layers, config: DecoderConfig, x: Value, context: BlockContext): Value
  /** Rows [n, hidden] after the last block -> the same through the last norm: what the head reads, transformers' `last_hidden_state`. */
  hidden(layers: Layers, config: DecoderConfig, rows: Value): Value
  /** Rows [n, hidden] after the last block -> logits [n, vocabulary]. */
  head(layers: Layers, config: DecoderConfig, rows: Value): Value
}

/** Refuses a config.json, naming the file. */
export type Refuse = (message: string, hint?: string) => never

/** What a linear layer makes. */
export interface LinearOptions {
  readonly outFeatures: number
  readonly bias: boolean
}

/** A linear layer among those that are given the same. */
export type LinearPart = LinearOptions & { readonly module: string }

/** Where a decoder gets its weights from. Adapters are made by wrapping one (`lora.ts`). */
export interface Layers {
  /** A weight, as f32. */
  parameter(name: string, shape: readonly number[]): Value
  /** x [..., in] -> [..., outFeatures]. */
  linear(module: string, x: Value, options: LinearOptions): Value
  /** What several layers make of the same x, where that is more than each alone: one product of joined weights. */
  linearsOf?(x: Value, parts: readonly LinearPart[]): readonly Value[]
}
