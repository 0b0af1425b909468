import { readFileSync } from 'node:fs'
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

/**
 * The highest resident set of this process so far, in bytes. What `getrusage` calls so begins, on Linux, with the resident set of the
 * process that started this one, so the kernel's figure for its own memory comes first.
 */
export function peakMemory(): number {
  try {
    const found = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))
    if (found?.[1] !== undefined) return Number(found[1]) * 1024
  } catch {
    // Not Linux.
  }
  return process.resourceUsage().maxRSS * 1024
}
