import type { Rope } from './decoder.ts'

export interface RopeTables {
  /** cos and sin of position times frequency, each [positions, headDim / 2]. */
  readonly cos: Float32Array
  readonly sin: Float32Array
}

/**
 * Tables for positions 0 to `positions` - 1. Rounded to f32 after each operation, as PyTorch computes them, so that long
 * contexts agree. Su et al. 2021; scaling as in transformers' `modeling_rope_utils.py`.
 */
export function ropeTables(rope: Rope, headDim: number, positions: number): RopeTables {
  const half = headDim / 2
  const frequencies = inverseFrequencies(rope, headDim)
  const cos = new Float32Array(positions * half)
  const sin = new Float32Array(positions * half)
  for (let position = 0; position < positions; position++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * (frequencies[i] ?? 0))
      cos[position * half + i] = Math.cos(angle)
      sin[position * half + i] = Math.sin(angle)
    }
  }
  return { cos, sin }
}

/** Radians a position, [headDim / 2]. */
export function inverseFrequencies({ theta, scaling }: Rope, headDim: number): Float32Array {
  const plain = Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const exponent = Math.fround((2 * i) / headDim)
    return 1 / Math.fround(theta ** exponent)
  })
  switch (scaling.type) {
    case 'default':
      return plain
    case 'linear':
      return plain.map((frequency) => frequency / scaling.factor)
    case 'llama3': {
      // Long wavelengths are stretched by the factor, short ones left alone, those between blended.
      const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalMaxPositions } = scaling
      return plain.map((frequency) => {
        const wavelength = (2 * Math.PI) / frequency
        if (wavelength > originalMaxPositions / low) return frequency / factor
        if (wavelength < originalMaxPositions / high) return frequency
        const smooth = (originalMaxPositions / wavelength - low) / (high - low)
        return ((1 - smooth) * frequency) / factor + smooth * frequency
      })
    }
  }
}
