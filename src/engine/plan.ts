import { availableParallelism, freemem } from 'node:os'

export interface PlanInput {
  readonly setting: 'keep' | 'recompute' | 'auto'
  /** Bytes that kept activations of the largest micro-batch take. */
  readonly keptBytes: number
  /** Bytes that weights stored in 16 bits take more once they are f32. */
  readonly expansionBytes: number
  /** Bytes that the run takes besides: weights as stored, adapters, optimizer, scratch space of the programs. */
  readonly otherBytes: number
}

export interface Plan {
  /** Whether activations are kept for the backward pass, which is faster, or computed again. */
  readonly activations: 'keep' | 'recompute'
  /**
   * Whether 16-bit weights are expanded to f32 once, or at each use. On SmolLM2-135M with 4 x 256 tokens the casts are 5 % of a
   * step (each includes a copy: BitCast does not work in place), the expansion 270 MB.
   */
  readonly expandWeights: boolean
}

/** Speed is bought with memory where it takes no more than this share of what is free. */
const shareOfFree = 0.7

/** Decides what to spend memory on: first on kept activations, then on expanded weights. */
export function planMemory({ setting, keptBytes, expansionBytes, otherBytes }: PlanInput): Plan {
  const budget = shareOfFree * availableMemory()
  const keeps = setting === 'auto' ? keptBytes + otherBytes <= budget : setting === 'keep'
  return {
    activations: keeps ? 'keep' : 'recompute',
    expandWeights: keeps && keptBytes + expansionBytes + otherBytes <= budget,
  }
}

/** Bytes this process may still take: free memory, or what a container leaves. */
function availableMemory(): number {
  const limit = process.constrainedMemory()
  const free = freemem()
  return limit > 0 && limit < Number.MAX_SAFE_INTEGER ? Math.min(free, limit - process.memoryUsage.rss()) : free
}

/** One thread for each core that the process may use. */
export function defaultThreads(): number {
  return availableParallelism()
}
