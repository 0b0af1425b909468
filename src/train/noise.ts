import type { Batch } from '../text/batches.ts'
import { fillUniform, stream } from '../util/random.ts'

/**
 * Adds the noise of NEFTune to embedded tokens `x` [batch * seq * width]: evenly spread within alpha / sqrt(tokens * width). Jain et al. 2023,
 * https://arxiv.org/abs/2310.05914. The length is that of the example, where transformers takes that of the padded batch, and the noise
 * is a function of seed, step and line of the example: how a step is padded, packed or split changes nothing.
 */
export function addEmbeddingNoise(
  x: Float32Array,
  { examples, starts, batch, seq }: Pick<Batch, 'examples' | 'starts' | 'batch' | 'seq'>,
  { alpha, seed, step }: { readonly alpha: number; readonly seed: number; readonly step: number },
): void {
  const width = x.length / (batch * seq)
  for (const [i, { ids, line }] of examples.entries()) {
    const noise = new Float32Array(ids.length * width)
    const bound = alpha / Math.sqrt(noise.length)
    fillUniform(noise, -bound, bound, stream(seed, 'neftune', step, line))
    const from = starts[i]! * width
    for (let j = 0; j < noise.length; j++) x[from + j] = x[from + j]! + noise[j]!
  }
}
