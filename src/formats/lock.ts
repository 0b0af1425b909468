import { open, readFile, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import { LowrankError } from '../util/errors.ts'
import { isJsonObject } from './json.ts'
import { writeError } from './atomic.ts'

/** Who holds a lock. */
interface Holder {
  readonly pid: number
  readonly host: string
  /** When the process began, as its system counts; numbers of processes are used again. */
  readonly started: string | undefined
  readonly since: string
}

/**
 * Takes a lock: a file that only one process has at a time. That of a process which has ended is taken over. Returns what gives it back.
 *
 * @throws LowrankError `config`: another process has it, and does `what`; `io`: the file cannot be written.
 */
export async function takeLock(path: string, what: string): Promise<() => Promise<void>> {
  const holder: Holder = {
    pid: process.pid,
    host: hostname(),
    started: await startOf(process.pid),
    since: new Date().toISOString(),
  }
  for (;;) {
    try {
      const file = await open(path, 'wx')
      try {
        await file.writeFile(`${JSON.stringify(holder)}\n`)
      } finally {
        await file.close()
      }
      return () => rm(path, { force: true })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw writeError(path, error as Error)
    }
    const other = await readHolder(path)
    if (other !== undefined && (await isAlive(other))) throw taken(path, what, other)
    // Two that find the same stale lock: the second removes that of the first within the moment between these two calls.
    await rm(path, { force: true })
  }
}

/** Who has a lock; undefined where it was given back meanwhile, or says nothing after the moment in which it is written. */
async function readHolder(path: string): Promise<Holder | undefined> {
  for (let tries = 0; tries < 20; tries++) {
    const text = await readFile(path, 'utf8').catch(() => undefined)
    if (text === undefined) return undefined
    const value = parse(text)
    if (value !== undefined) return value
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  return undefined
}

function parse(text: string): Holder | undefined {
  try {
    const value: unknown = JSON.parse(text)
    const whole = isJsonObject(value) && Number.isInteger(value['pid']) && typeof value['host'] === 'string'
    return whole ? (value as unknown as Holder) : undefined
  } catch {
    return undefined
  }
}

/** Of a process on another machine nothing can be known: it is taken to live. */
async function isAlive({ pid, host, started }: Holder): Promise<boolean> {
  if (host !== hostname()) return true
  try {
    process.kill(pid, 0)
  } catch (error) {
    // That of another user, if there is one.
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false
  }
  const now = await startOf(pid)
  return started === undefined || now === undefined || now === started
}

/** When a process began, in ticks since the machine did; undefined where the system does not say it in this way. */
async function startOf(pid: number): Promise<string | undefined> {
  const line = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  // The second field is the name in parentheses, which may hold anything.
  return line?.slice(line.lastIndexOf(')') + 2).split(' ')[19]
}

function taken(path: string, what: string, { pid, host, since }: Holder): LowrankError {
  const elsewhere = host === hostname() ? '' : ` on ${host}`
  return new LowrankError('config', `${what}: process ${pid}${elsewhere} does so since ${since}`, {
    hint: `Wait for it, or choose another folder.${elsewhere && ` If that process is gone, remove ${path}.`}`,
  })
}
