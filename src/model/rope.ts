import type { DecoderConfig, Rope } from './decoder.ts'

/** cos and sin of position times frequency, each [positions, channels / 2]. */
interface RopeTables {
  readonly cos: Float32Array
  readonly sin: Float32Array
}

/** Where the tables depend on the length of an example: a number that is the same for lengths of the same tables. */
export function lengthRegime({ scaling }: Rope): ((length: number) => number) | undefined {
  if (scaling.type === 'dynamic') return (length) => Math.max(length, scaling.maxPositions)
  if (scaling.type === 'longrope') return (length) => Number(length > scaling.originalMaxPositions)
  return undefined
}

/** Equal for lengths of examples whose positions all layers see alike; undefined where that is so for all lengths. */
export function lengthRegimes({ layers }: Pick<DecoderConfig, 'layers'>): ((length: number) => string) | undefined {
  const ropes = new Set(layers.flatMap(({ rope }) => rope ?? []))
  const regimes = [...ropes].flatMap((rope) => lengthRegime(rope) ?? [])
  return regimes.length === 0 ? undefined : (length) => regimes.map((regime) => regime(length)).join()
}

/**
 * Whether a text that grows into another regime is computed again from its beginning, as transformers does: the factors of `longrope` are
 * other ones then, those of `dynamic` grow with each token, and earlier ones stay.
 */
export function restartsWithLength({ scaling }: Rope): boolean {
  return scaling.type === 'longrope'
}

/**
 * Tables for positions 0 to `positions` - 1 of an example of `length` tokens. Rounded to f32 after each operation, as PyTorch computes
 * them, so that long contexts agree. Su et al. 2021; scaling as in transformers' `modeling_rope_utils.py`, except that there a batch is
 * scaled by its longest example.
 */
export function ropeTables(rope: Rope, positions: number, length = positions): RopeTables {
  const half = rope.channels / 2
  const frequencies = inverseFrequencies(rope, length)
  const factor = 'attentionFactor' in rope.scaling ? rope.scaling.attentionFactor : 1
  const cos = new Float32Array(positions * half)
  const sin = new Float32Array(positions * half)
  for (let position = 0; position < positions; position++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * (frequencies[i] ?? 0))
      cos[position * half + i] = Math.fround(Math.cos(angle)) * factor
      sin[position * half + i] = Math.fround(Math.sin(angle)) * factor
    }
  }
  return { cos, sin }
}

/** Radians a position, [channels / 2]. */
export function inverseFrequencies({ theta, channels, scaling }: Rope, length: number): Float32Array {
  switch (scaling.type) {
    case 'default':
      return plain(theta, channels)
    case 'linear':
      return plain(theta, channels).map((frequency) => frequency / scaling.factor)
    case 'dynamic': {
      // The base grows with the length, so that the slowest channel still spans it.
      const { factor, maxPositions } = scaling
      const grown = (factor * Math.max(length, maxPositions)) / maxPositions - (factor - 1)
      return plain(theta * grown ** (channels / (channels - 2)), channels)
    }
    case 'llama3': {
      // Long wavelengths are stretched by the factor, short ones left alone, those between blended.
      const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalMaxPositions } = scaling
      return plain(theta, channels).map((frequency) => {
        const wavelength = (2 * Math.PI) / frequency
        if (wavelength > originalMaxPositions / low) return frequency / factor
        if (wavelength < originalMaxPositions / high) return frequency
        const smooth = (originalMaxPositions / wavelength - low) / (high - low)
        return ((1 - smooth) * frequency) / factor + smooth * frequency
      })
    }
    case 'yarn': {
      // Channels that turn often within the trained length are left alone, those that turn seldom are stretched. Peng et al. 2023.
      const { factor, betaFast, betaSlow, originalMaxPositions, truncate } = scaling
      const channelOf = (turns: number): number =>
        (channels * Math.log(originalMaxPositions / (turns * 2 * Math.PI))) / (2 * Math.log(theta))
      const [first, last] = [channelOf(betaFast), channelOf(betaSlow)]
      const low = Math.max(truncate ? Math.floor(first) : first, 0)
      const high = Math.min(truncate ? Math.ceil(last) : last, channels - 1)
      const width = high === low ? 0.001 : high - low
      return Float32Array.from({ length: channels / 2 }, (_, i) => {
        const kept = 1 - Math.fround(Math.min(1, Math.max(0, Math.fround((i - low) / width))))
        const base = power(theta, i, channels)
        const [stretched, own] = [1 / Math.fround(factor * base), 1 / base]
        return Math.fround(Math.fround(stretched) * (1 - kept)) + Math.fround(Math.fround(own) * kept)
      })
    }
    case 'longrope': {
      const factors = length > scaling.originalMaxPositions ? scaling.longFactor : scaling.shortFactor
      return Float32Array.from(factors, (by, i) => 1 / Math.fround(Math.fround(by) * power(theta, i, channels)))
    }
  }
}

function plain(theta: number, channels: number): Float32Array {
  return Float32Array.from({ length: channels / 2 }, (_, i) => 1 / power(theta, i, channels))
}

/** theta^(2 i / channels). */
function power(theta: number, i: number, channels: number): number {
  return Math.fround(theta ** Math.fround((2 * i) / channels))
}
