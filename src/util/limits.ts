import { readdirSync, readFileSync } from 'node:fs'
import { LowrankError, messageOf } from './errors.ts'
import { formatSize } from './format.ts'

/** What the system allows this process, and what is in use. */
interface Limit {
  readonly most: number
  readonly used: number
  /** How it is called where it is set. */
  readonly name: string
}

/**
 * The limit on threads that leaves fewest; undefined where there is none, or none that can be seen. On Linux only: there a thread that cannot
 * be started ends the process, or leaves ONNX Runtime waiting for it.
 */
function threadLimit(): Limit | undefined {
  const limits = [userLimit(), containerLimit()].filter((limit) => limit !== undefined)
  return limits.toSorted((a, b) => a.most - a.used - (b.most - b.used))[0]
}

/** Threads that may still be started; infinitely many where no limit is seen. */
export function threadsLeft(): number {
  const limit = threadLimit()
  return limit === undefined ? Infinity : Math.max(0, limit.most - limit.used)
}

/**
 * Refuses what needs more threads than may be started.
 *
 * @throws LowrankError `config`.
 */
export function checkThreads(what: string, needed: number): void {
  const limit = threadLimit()
  if (limit === undefined || limit.most - limit.used >= needed) return
  const { most, used, name } = limit
  throw new LowrankError(
    'config',
    `${what} needs ${needed} more threads, but ${name} allows ${most}, and ${used} are in use`,
    { hint: `Raise the limit (${name}), end other programs of this user, or compute with fewer threads (--threads).` },
  )
}

/** `ulimit -u`: threads of all processes of the user. */
function userLimit(): Limit | undefined {
  const most = processLimit('Max processes')
  const status = readText('/proc/self/status')
  if (most === undefined || status === undefined) return undefined
  const user = field(status, 'Uid')
  const capabilities = BigInt(`0x${field(status, 'CapEff') ?? '0'}`)
  // Root, and those who may exceed limits or administrate, are not bound by it.
  if (user === '0' || ((capabilities >> 24n) & 1n) === 1n || ((capabilities >> 21n) & 1n) === 1n) return undefined
  let used = 0
  for (const id of readdirSync('/proc')) {
    const other = /^\d+$/.test(id) ? readText(`/proc/${id}/status`) : undefined
    if (other !== undefined && field(other, 'Uid') === user) used += Number(field(other, 'Threads') ?? 0)
  }
  return { most, used, name: 'ulimit -u' }
}

/** The limit of a container (`docker run --pids-limit`), as version 2 and version 1 of control groups have it. */
function containerLimit(): Limit | undefined {
  for (const line of (readText('/proc/self/cgroup') ?? '').split('\n')) {
    const [id, controllers = '', path = ''] = line.split(':')
    const root = id === '0' ? '/sys/fs/cgroup' : controllers.split(',').includes('pids') ? '/sys/fs/cgroup/pids' : ''
    // Within a container the path may be that of the host, while its own group is mounted as the root.
    for (const folder of root === '' ? [] : [`${root}${path}`, root]) {
      const [most, used] = [Number(readText(`${folder}/pids.max`)), Number(readText(`${folder}/pids.current`))]
      if (Number.isFinite(most) && Number.isFinite(used) && most > 0) {
        return { most, used, name: 'the limit on processes of the container (pids.max)' }
      }
    }
  }
  return undefined
}

/** Whether memory, or addresses for it, could not be taken: as V8, ONNX Runtime, the C library and the loader of libraries say it. */
export function isOutOfMemory(error: unknown): boolean {
  if (error instanceof LowrankError) return error.code === 'memory'
  return /bad_alloc|alloc\w* (failed|failure)|failed to (allocate|map)|cannot allocate|pthread_create failed|ENOMEM/i.test(
    messageOf(error),
  )
}

/** Whether a limit on addresses (`ulimit -v`) may be met before memory is full. */
export function addressesAreLimited(): boolean {
  return processLimit('Max address space') !== undefined
}

/** Memory that could not be taken: where (`in block.forward`), the reason, and the limit of the process, if it has one. */
export function memoryError(where: string, cause: unknown, hint: string): LowrankError {
  const most = processLimit('Max address space')
  // What ONNX Runtime says of its own source is of no use to anyone.
  const reason = messageOf(cause).replace(/^.*(?=pthread_create failed)/s, '')
  const limit = most === undefined ? '' : `; ulimit -v allows ${formatSize(most)} of addresses`
  const raise = most === undefined ? '' : ' Or raise ulimit -v: of addresses, Node.js alone takes more than 1.5 GB.'
  return new LowrankError('memory', `out of memory ${where}: ${reason}${limit}`, { hint: `${hint}${raise}`, cause })
}

/** What takes less memory where nothing is known of the run. */
export const smallerHint = 'Use a smaller batch, a shorter maxLength, or activations: recompute.'

/** A limit of this process, as `/proc/self/limits` calls it. */
function processLimit(name: string): number | undefined {
  const [, value] = new RegExp(`^${name}\\s+(\\d+)`, 'm').exec(readText('/proc/self/limits') ?? '') ?? []
  return value === undefined ? undefined : Number(value)
}

function field(status: string, name: string): string | undefined {
  return new RegExp(`^${name}:\\s+(\\S+)`, 'm').exec(status)?.[1]
}

/** A file, or undefined where there is none: not Linux, or a process that has ended. */
function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
