import { availableParallelism, freemem } from 'node:os'

/** Bytes this process may still take: free memory, or what a container leaves. */
export function availableMemory(): number {
  const limit = process.constrainedMemory()
  const free = freemem()
  return limit > 0 && limit < Number.MAX_SAFE_INTEGER ? Math.min(free, limit - process.memoryUsage.rss()) : free
}

/** One thread for each core that the process may use. */
export function defaultThreads(): number {
  return availableParallelism()
}
