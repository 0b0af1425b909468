/*
 * Damaged files of every kind, each read by a call of the API: none may end the process, take over 20 seconds, be an error of Lowrank's
 * own, or be used as if nothing were wrong where the format shows that something is (`verdict.ts`).
 *
 *     npm run fuzz -- [--count 3000] [--seed 1] [--only SEED] [--direct] [--jobs 1] [--verbose]
 *
 * Case i has the seed `seed + i`, which decides all of it: `--only` runs one alone. `--direct` leaves out the worker threads of the API;
 * `--jobs` says how many cases run at a time.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { Outcome } from './case.ts'
import { makeSeeds } from './seeds.ts'
import { failures, type Verdict } from './verdict.ts'

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '3000' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
    direct: { type: 'boolean', default: false },
    jobs: { type: 'string', default: '1' },
    verbose: { type: 'boolean', default: false },
  },
})
/** `seconds` that a case may compute; what waits for others, on a machine that is busy, may wait longer. */
const limits = { seconds: 20, waiting: 120, bytes: 3e9 }

interface Message {
  readonly plan?: Pick<Outcome, 'call' | 'file' | 'how'>
  readonly outcome?: Outcome
  readonly broken?: string
}

/** A child process that runs cases, and another one after each that it did not survive. */
class Cases {
  readonly #args: readonly string[]
  #child: ChildProcess | undefined

  constructor(seeds: string, work: string, through: 'api' | 'direct') {
    this.#args = [seeds, work, through]
  }

  async run(seed: number): Promise<Outcome> {
    const child = (this.#child ??= fork(fileURLToPath(new URL('./child.js', import.meta.url)), this.#args, {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    }))
    const begun = performance.now()
    const before = await processorSeconds(child.pid)
    const computed = async (): Promise<number> => (await processorSeconds(child.pid)) - before
    let plan: Message['plan']
    let [reported, killed] = ['', undefined as Verdict | undefined]
    const onError = (text: Buffer): void => void (reported = (reported + text.toString()).slice(-2000))
    child.stderr?.on('data', onError)
    const watchdog = setInterval(() => {
      const elapsed = (performance.now() - begun) / 1000
      void residentBytes(child.pid).then((bytes) => bytes > limits.bytes && (killed ??= 'memory'))
      if (elapsed > limits.seconds) void computed().then((seconds) => seconds > limits.seconds && (killed ??= 'hang'))
      if (elapsed > limits.waiting) killed ??= 'hang'
      if (killed !== undefined) child.kill('SIGKILL')
    }, 250)
    try {
      return await new Promise<Outcome>((resolve, reject) => {
        child.on('message', (message: Message) => {
          plan = message.plan ?? plan
          if (message.outcome !== undefined) resolve(message.outcome)
          if (message.broken !== undefined) reject(new Error(`case ${seed}: ${message.broken}`))
        })
        child.on('exit', (code, signal) => {
          this.#child = undefined
          const seconds = (performance.now() - begun) / 1000
          const verdict = killed ?? 'crash'
          const found = `${signal ?? code} after ${seconds.toFixed(1)} s: ${reported.trim()}`
          const unknown = { call: 'none', file: 'none', how: 'it ended before there was a damaged file' }
          resolve({ seed, verdict, ...(plan ?? unknown), found, seconds })
        })
        child.send(seed)
      })
    } finally {
      clearInterval(watchdog)
      child.removeAllListeners()
      child.stderr?.off('data', onError)
    }
  }

  close(): void {
    this.#child?.kill('SIGKILL')
  }
}

/** What a process takes, where the system tells. */
async function residentBytes(pid: number | undefined): Promise<number> {
  const text = await readFile(`/proc/${pid}/statm`, 'utf8').catch(() => '')
  return 4096 * Number(text.split(' ')[1] ?? 0)
}

/** What a process has computed so far, where the system tells: fields 14 and 15 of its state, in hundredths of a second. */
async function processorSeconds(pid: number | undefined): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / 100
}

function print({ seed, verdict, call, file, how, found }: Outcome): void {
  const indented = found.slice(0, 1500).replaceAll('\n', '\n    ')
  console.log(`${verdict} (--only ${seed}): ${call}; ${file}: ${how}\n    ${indented}`)
}

function table(): string {
  const verdicts: readonly Verdict[] = ['refused', 'same', 'changed', ...failures]
  const rows = [...new Set(outcomes.map(({ call }) => call))].sort().map((name) => {
    const own = outcomes.filter(({ call }) => call === name)
    return [name, ...verdicts.map((verdict) => String(own.filter((one) => one.verdict === verdict).length))]
  })
  const totals = verdicts.map((verdict) => String(outcomes.filter((one) => one.verdict === verdict).length))
  const lines = [['', ...verdicts], ...rows, ['all', ...totals]]
  return lines
    .map(([name = '', ...cells]) => name.padEnd(20) + cells.map((cell) => cell.padStart(9)).join(''))
    .join('\n')
}

const root = await mkdtemp(join(tmpdir(), 'lowrank-fuzz-'))
const outcomes: Outcome[] = []
const first = Number(values.only ?? values.seed)
const count = values.only === undefined ? Number(values.count) : 1
let next = first

/** Runs cases until none is left. */
async function work(job: number): Promise<void> {
  const cases = new Cases(join(root, 'seeds'), join(root, `case-${job}`), values.direct ? 'direct' : 'api')
  try {
    while (next < first + count) {
      const outcome = await cases.run(next++)
      outcomes.push(outcome)
      if (failures.includes(outcome.verdict) || values.verbose || values.only !== undefined) print(outcome)
    }
  } finally {
    cases.close()
  }
}

try {
  await makeSeeds(join(root, 'seeds'))
  await Promise.all(Array.from({ length: Number(values.jobs) }, (_, job) => work(job)))
  const failed = outcomes.filter(({ verdict }) => failures.includes(verdict))
  const slowest = outcomes.reduce((most, { seconds }) => Math.max(most, seconds), 0)
  console.log(`${table()}\n`)
  console.log(`${count} damaged files, ${failed.length} failed; the slowest took ${slowest.toFixed(1)} s`)
  if (failed.length > 0) process.exitCode = 1
} finally {
  await rm(root, { recursive: true, force: true })
}
