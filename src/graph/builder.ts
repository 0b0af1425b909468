import type { Dim, Shape } from './dims.ts'
import type { Activation, FourBitAttributes, NBitAttributes, SliceAttributes, TensorType, Value } from './value.ts'

/**
 * The functions that programs are written with. Each returns a symbolic tensor; nothing is computed. Products with 1 and
 * the like are dropped, so that gradients do not pay for them. What an op means exactly stands in the table of ops.
 */
export interface Builder {
  /** A tensor that is fed at run time under this name. */
  input(name: string, type: TensorType): Value
  constant(value: number): Value
  integers(values: readonly number[]): Value
  add(x: Value, y: Value): Value
  sub(x: Value, y: Value): Value
  mul(x: Value, y: Value): Value
  /** x times a number. */
  scale(x: Value, factor: number): Value
  exp(x: Value): Value
  sigmoid(x: Value): Value
  tanh(x: Value): Value
  silu(x: Value): Value
  /** act(gate) up */
  gated(gate: Value, up: Value, activation: Activation): Value
  /** cap tanh(x / cap), between -cap and cap. */
  softCap(x: Value, cap: number): Value
  /** Over the last axis. */
  softmax(x: Value): Value
  /** x [..., n], weight [n] -> x / sqrt(mean(x^2) + epsilon) * weight. */
  rmsNorm(x: Value, weight: Value, epsilon: number): Value
  /** x [batch, seq, heads * d], cos and sin [.., seq, c / 2]: the first c of the d channels of each head are rotated. */
  rope(x: Value, cos: Value, sin: Value, heads: number): Value
  /** x [..., k] times a weight [n, k], transposed as checkpoints store it (the default), or [k, n]. */
  linear(x: Value, weight: Value, options?: { readonly transposed?: boolean }): Value
  /** alpha x y, batched over the leading dimensions, either operand transposed in its last two. */
  matmul(
    x: Value,
    y: Value,
    options?: { readonly transA?: boolean; readonly transB?: boolean; readonly alpha?: number },
  ): Value
  reshape(x: Value, shape: Shape): Value
  transpose(x: Value, permutation: readonly number[]): Value
  /** Parts of x along an axis; `sizes` i64 [n] says how long they are. */
  split(x: Value, sizes: Value, attributes: { readonly axis: number; readonly parts: readonly Dim[] }): readonly Value[]
  /** Parts joined along an axis: the inverse of `split`. */
  concat(parts: readonly Value[], sizes: Value, attributes: { readonly axis: number; readonly whole: Dim }): Value
  /** x, so many times one after the other along an axis. */
  repeat(x: Value, attributes: { readonly axis: number; readonly times: number }): Value
  /** Keeps the summed axes as 1. */
  reduceSum(x: Value, axes: readonly number[]): Value
  /** x broadcast to the shape of `like`, whose values do not matter. */
  expandLike(x: Value, like: Value): Value
  /** Losses [n] in nats and log probabilities [n, v]; `smoothing` is the share of each label that is spread over all v. */
  crossEntropy(logits: Value, targets: Value, options?: { readonly smoothing?: number }): readonly [Value, Value]
  /** x [n, v] with `value` added at column columns[i] of every row i. */
  addAt(x: Value, columns: Value, value: number): Value
  /** Rows of x [..., w] by flat index, i64 [m] -> [m, w]; none may be taken twice. */
  takeRows(x: Value, rows: Value): Value
  /** Zeros like `like`, with y [m, w] at these flat rows. */
  putRows(y: Value, rows: Value, like: Value): Value
  /** Index of the largest element of the last axis, i64. */
  argmax(x: Value): Value
  /** 16-bit elements, as bits in u16 -> f32. */
  decode(x: Value, format: 'bf16' | 'f16', options?: { readonly again?: boolean }): Value
  /** The weight [rows, columns] that `codes` (two to a byte) and `scales` (one to a block) stand for. */
  fourBitWeight(codes: Value, scales: Value, attributes: FourBitAttributes): Value
  /** The weight [rows, columns] that `codes` [rows, blocks, bytes] around the middle and `scales` [rows, blocks] stand for. */
  nBitWeight(codes: Value, scales: Value, attributes: NBitAttributes): Value
  /** The weight [rows, columns] whose rows are `scales` [rows] times sums of integers: see the op. */
  slicedWeight(scales: Value, slices: readonly Value[], attributes: SliceAttributes): Value
  /** u8 or i8 -> f32. */
  toFloat(x: Value): Value
  /** (codes u8 [rows, 3 n / 4], scales f32 [rows, n / 16]) -> f32 [rows, n]: numbers of six bits, times the scales of their groups. */
  sixBits(codes: Value, scales: Value): Value

  /** Sum over the last axis, kept as 1. */
  sumLast(x: Value): Value
  /** [..., k] as rows [n, k]. */
  rows(x: Value): Value
  /** [n] as a column [n, 1]. */
  column(x: Value): Value
  /** A gradient summed over the axes along which `shape` was broadcast to it. */
  sumTo(x: Value, shape: Shape): Value
}
