import { execFile, execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { flags, quickstart, root, temporaryFolder, writeData, type Outcome } from './support.ts'

// Limits of the machine are named, and nothing hangs.

const folder = temporaryFolder()
const { train, valid } = writeData(folder, { train: 8, valid: 4 })
const main = join(root, 'dist/cli.js')
const run = { model: quickstart, train, maxSteps: 1, maxLength: 128, perDeviceTrainBatchSize: 2 }

/** Runs a shell line in which `lowrank` is the command line; on Linux, with bash. */
function shell(line: string, env: Record<string, string> = {}): Promise<Outcome> {
  const script = `lowrank() { '${process.execPath}' '${main}' "$@"; }\n${line}`
  return new Promise((resolve) => {
    const options = { env: { ...process.env, ...env }, timeout: 60_000 }
    execFile('bash', ['-c', script], options, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : null, stdout, stderr }),
    )
  })
}

const words = (options: Parameters<typeof flags>[0]): string =>
  flags(options)
    .map((word) => `'${word}'`)
    .join(' ')

describe.skipIf(process.platform !== 'linux')('limits', () => {
  test('a small run needs few addresses', async () => {
    const { code, stderr } = await shell(
      `ulimit -v 2600000; lowrank train ${words({ ...run, outputDir: join(folder, 'v') })} --threads 2`,
    )
    expect(code, stderr).toBe(0)
  })

  test('a current folder that was removed', async () => {
    const gone = join(folder, 'gone')
    mkdirSync(gone)
    const { code, stderr } = await shell(
      `cd '${gone}'; rmdir '${gone}'; lowrank eval ${words({ model: quickstart, data: valid })}`,
    )
    expect([code, stderr]).toEqual([
      1,
      expect.stringContaining('error: the current folder does not exist any more\nhint:'),
    ])
    expect(stderr).not.toContain('\n    at ')
  })

  test('a run that takes more than its bound says so, once', async () => {
    const ballast = '--import=data:text/javascript,globalThis.ballast=Buffer.alloc(400e6,1)'
    const options = { ...run, maxSteps: 2, memory: '330MB', outputDir: join(folder, 'bound') }
    const { code, stderr } = await shell(`lowrank train ${words(options)}`, { NODE_OPTIONS: ballast })
    expect(code, stderr).toBe(0)
    expect(stderr.match(/this run has taken .* more than the 330 MB it is bound to/g)).toHaveLength(1)
  })

  /** As a user with a limit on threads; root has none. */
  const asNobody = (threads: number): string | undefined => {
    const line = `prlimit --nproc=${threads} setpriv --reuid=65534 --regid=65534 --clear-groups`
    try {
      execFileSync('bash', ['-c', `${line} '${process.execPath}' -e 'require("fs").accessSync("${main}")'`], {
        stdio: 'ignore',
      })
      return line
    } catch {
      return undefined
    }
  }

  test.skipIf(asNobody(60) === undefined)('threads: fewer programs at a time, or an error with figures', async () => {
    chmodSync(folder, 0o777)
    const start = (limit: number, threads: number): Promise<Outcome> =>
      shell(
        `${asNobody(limit)} '${process.execPath}' '${main}' train ${words({ ...run, threads, outputDir: join(folder, `t${limit}-${threads}`) })}`,
      )
    const few = await start(45, 8)
    expect(few.code, few.stderr).toBe(0)
    const many = await start(60, 64)
    expect([many.code, many.stderr]).toEqual([
      2,
      expect.stringMatching(
        /error: computing with 64 threads needs \d+ more threads, but ulimit -u allows 60, and \d+ are in use/,
      ),
    ])
    const none = await start(20, 2)
    expect([none.code, none.stderr]).toEqual([
      2,
      expect.stringMatching(/needs \d+ more threads, but ulimit -u allows 20/),
    ])
  })
})
