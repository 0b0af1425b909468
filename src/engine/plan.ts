import { availableParallelism, freemem } from 'node:os'

export interface PlanInput {
  readonly setting: 'keep' | 'recompute' | 'auto'
  /** Bytes that kept activations of the largest micro-batch take. */
  readonly keptBytes: number
  /** Bytes that the run takes besides: weights, adapters, optimizer, scratch space of the programs. */
  readonly otherBytes: number
}

/** Keeping activations is faster; it is chosen where it takes no more than this share of the memory that is free. */
const shareOfFree = 0.7

/** Whether activations are kept or computed again. */
export function planActivations({ setting, keptBytes, otherBytes }: PlanInput): 'keep' | 'recompute' {
  if (setting !== 'auto') return setting
  return keptBytes + otherBytes <= shareOfFree * availableMemory() ? 'keep' : 'recompute'
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
