import type { Quantization } from '../config/index.ts'
import { openSession } from '../session/session.ts'
import { LowrankError } from '../util/errors.ts'
import { argmax } from '../util/vectors.ts'
import type { LogitsComparison } from './exporter.ts'

/** Short texts of several kinds: what follows them shows whether a model computes as it should. */
export const probeTexts = [
  'The capital of France is',
  'def add(a, b):\n    return',
  '1 + 2 = 3, 4 + 5 = ',
  'Es war einmal ein',
]

interface ProbeOptions {
  readonly model: string
  readonly adapter?: string | undefined
  readonly quantization?: Quantization | undefined
  readonly threads: number | undefined
  readonly cancelled: () => boolean
}

/** Logits of the token after each of some texts, blocks read from disk one after the other where that is possible. */
export async function probeLogits(options: ProbeOptions): Promise<readonly Float32Array[]> {
  const { cancelled } = options
  await using session = await openSession(options)
  const streamed = session.decoder.streamable ? { streamed: { group: 1 } } : {}
  const { pipeline, tokenizer } = await session.load(streamed)
  const found: Float32Array[] = []
  for (const ids of await tokenizer.encode(probeTexts)) {
    const logits = await pipeline.nextLogits(Int32Array.from([...tokenizer.prefix, ...ids]), cancelled)
    if (logits === undefined) throw new LowrankError('cancelled', 'the export was cancelled')
    found.push(logits)
  }
  return found
}

/** Compares logits of two models, text by text. */
export function compareLogits(
  wanted: readonly Float32Array[],
  found: readonly Float32Array[],
): LogitsComparison & { readonly largestLogit: number } {
  let [largestDifference, largestLogit, divergence, sameFirst] = [0, 0, 0, 0]
  wanted.forEach((expected, i) => {
    const other = found[i] ?? new Float32Array(0)
    for (let j = 0; j < expected.length; j++) {
      // NaN is the largest difference there is.
      const difference = Math.abs(expected[j]! - (other[j] ?? NaN))
      if (!(difference <= largestDifference)) largestDifference = difference
      largestLogit = Math.max(largestLogit, Math.abs(expected[j]!))
    }
    const [p, q] = [logSoftmax(expected), logSoftmax(other)]
    divergence += p.reduce((sum, value, j) => sum + Math.exp(value) * (value - (q[j] ?? NaN)), 0) / wanted.length
    if (argmax(expected) === argmax(other)) sameFirst++
  })
  return { texts: wanted.length, largestDifference, divergence: Math.max(0, divergence), sameFirst, largestLogit }
}

function logSoftmax(logits: Float32Array): Float64Array {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity)
  const total = logits.reduce((sum, value) => sum + Math.exp(value - most), 0)
  return Float64Array.from(logits, (value) => value - most - Math.log(total))
}
