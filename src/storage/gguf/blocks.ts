/** A block format of GGUF, as `ggml-quants.c` of llama.cpp defines it. */
export interface BlockFormat {
  /** Where in a block its scales are, in f16: if these are finite, so are its numbers. */
  readonly scales: readonly number[]
  /**
   * Whole blocks to f32, bit for bit as the reference: `out` has an element for each. Products of a scale and a code are exact in f32,
   * so that each number is rounded once, where it is stored.
   */
  readonly dequantize: (bytes: Uint8Array, out: Float32Array) => void
}
