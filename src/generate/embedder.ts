import type { LoadedAdapter } from '../engine/cached/adapters.ts'
import type { CachedDecoder } from '../engine/cached/cached-decoder.ts'
import { LowrankError } from '../util/errors.ts'

/** What a text means to the model. */
export interface EmbeddedText {
  /** Which of the texts. */
  readonly index: number
  /** [hidden], of length 1. */
  readonly vector: Float32Array
}

/** Most positions of texts that are computed together. */
const mostPositions = 2048

interface EmbedOptions {
  readonly adapter: LoadedAdapter | undefined
  readonly cancelled?: (() => boolean) | undefined
  /** Tokens of each text that go through the model at once. */
  readonly chunk?: number
}

/**
 * Embeds texts, as `ids` at least one long: the mean over their positions of what the head would read, scaled to length 1. Texts of similar
 * length are computed together; what is behind the end of the shorter ones, no position of theirs sees. They come batch by batch.
 *
 * @throws LowrankError `model`: the weights give hidden states that are not finite.
 */
export async function* embedded(
  decoder: CachedDecoder,
  texts: readonly Int32Array[],
  { adapter, cancelled = () => false, chunk = 256 }: EmbedOptions,
): AsyncGenerator<EmbeddedText, void> {
  for (const batch of batches(decoder, texts)) {
    const longest = Math.max(...batch.map((index) => texts[index]!.length))
    const sums: Float64Array[] = []
    const cache = decoder.newCache(batch.length)
    for (let start = 0; start < longest; start += chunk) {
      if (cancelled()) return
      const seq = Math.min(chunk, longest - start)
      const ids = new Int32Array(batch.length * seq)
      batch.forEach((index, row) => ids.set(texts[index]!.subarray(start, start + seq), row * seq))
      const adapters = batch.map(() => adapter)
      const states = await decoder.hidden(cache, { ids, adapters, length: longest })
      const width = states.length / ids.length
      batch.forEach((index, row) => {
        const sum = (sums[row] ??= new Float64Array(width))
        const end = row * seq + Math.min(seq, texts[index]!.length - start)
        for (let at = row * seq; at < end; at++) addTo(sum, states.subarray(at * width, (at + 1) * width))
      })
    }
    yield* batch.map((index, row) => ({ index, vector: unit(sums[row]!) }))
  }
}

/** Indices of texts that are computed together: of similar length, and whose positions are seen alike. */
function* batches(decoder: CachedDecoder, texts: readonly Int32Array[]): Generator<readonly number[]> {
  const order = [...texts.keys()].sort((a, b) => texts[b]!.length - texts[a]!.length)
  let batch: number[] = []
  for (const index of order) {
    const [first, length] = [texts[batch[0] ?? index]!.length, texts[index]!.length]
    const full = (batch.length + 1) * first > mostPositions || decoder.regime(first) !== decoder.regime(length)
    if (batch.length > 0 && full) {
      yield batch
      batch = []
    }
    batch.push(index)
  }
  if (batch.length > 0) yield batch
}

function addTo(sum: Float64Array, values: Float32Array): void {
  for (let i = 0; i < sum.length; i++) sum[i] = sum[i]! + values[i]!
}

function unit(sum: Float64Array): Float32Array {
  const length = Math.hypot(...sum)
  if (!Number.isFinite(length)) {
    throw new LowrankError('model', 'the hidden states of a text are not finite', {
      hint: 'The weights are finite: some of them are far too large.',
    })
  }
  return Float32Array.from(sum, (value) => (length === 0 ? 0 : value / length))
}
