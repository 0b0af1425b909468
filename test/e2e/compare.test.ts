import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fork, spawn } from 'node:child_process'
import type { CompareResult } from 'lowrank'
import { beforeAll, expect, test } from 'vitest'
import { readRun } from '../../src/runs/read.ts'
import { jobsOf, processesOf, runningJobs, startGroup, until } from './jobs.ts'
import { flags, lowrank, makeTinyModel, readJson, root, temporaryFolder, untilSteps, writeData } from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder, { train: 16, valid: 6 })
const settings = {
  ...data,
  maxLength: 48,
  maxSteps: 30,
  perDeviceTrainBatchSize: 2,
  learningRate: 1e-2,
  evalSteps: 10,
  saveSteps: 3,
  loraDropout: 0.1,
  threads: 2,
  workers: 2,
  methods: 'full,lora',
  ranks: '2',
} as const
let model = ''
beforeAll(async () => {
  model = await makeTinyModel(folder)
})

const compareArgs = (outputDir: string): string[] => ['compare', '--json', ...flags({ ...settings, model, outputDir })]

/** A comparison without what depends on time and machine. */
function figuresOf(text: string, outputDir: string): string {
  const { cells, reference, notes } = JSON.parse(text) as CompareResult
  const stable = cells.map(({ figures, ...cell }) => {
    const { peakMemory: _, seconds: __, tokensPerSecond: ___, servedMemory: ____, ...rest } = figures!
    return { ...cell, ...rest }
  })
  return JSON.stringify({ stable, reference, notes }).replaceAll(outputDir, 'OUT')
}

let plain = ''

test('the table is that of the runs; called again, nothing is trained again', async () => {
  const outputDir = join(folder, 'plain')
  const { code, stdout, stderr } = await lowrank(compareArgs(outputDir))
  expect(code, stderr).toBe(0)
  plain = figuresOf(stdout, outputDir)
  const { cells, page, reference } = JSON.parse(stdout) as CompareResult
  expect(cells.map(({ name }) => name)).toEqual(['full', 'lora r=2'])
  expect(reference).toBe('full')
  for (const { folders, figures, learningRate, method } of cells) {
    const run = await readRun(folders[0]!)
    expect(run.status).toBe('done')
    expect(run.config).toMatchObject({ method, learningRate, seed: 42 })
    expect(figures).toMatchObject({
      evalLoss: run.figures.lastEval?.loss,
      tokenAccuracy: run.figures.lastEval?.tokenAccuracy,
      peakMemory: run.figures.peakMemory,
      seconds: run.figures.seconds,
    })
    // Tiny weights are f32, so nothing is rounded.
    expect(figures?.savedLoss).toBeCloseTo(figures!.evalLoss, 5)
    expect(figures!.servedMemory).toBeGreaterThan(1e7)
  }
  expect(cells.map(({ learningRate }) => learningRate)).toEqual([5e-5, 1e-2])
  expect(cells[1]!.figures?.gap?.share).toBeCloseTo(cells[1]!.figures!.evalLoss / cells[0]!.figures!.evalLoss - 1, 10)
  expect(readFileSync(page, 'utf8')).toContain('lora r=2')
  const again = await lowrank(compareArgs(outputDir))
  expect(again.stderr).not.toContain('train, 1 of')
  expect(again.stdout).toBe(stdout)
}, 60_000)

test.skipIf(process.platform !== 'linux')(
  'killed twice, the table is the same, and no process is left',
  async () => {
    const outputDir = join(folder, 'killed')
    const experiment = join(outputDir, 'compare')
    const start = () => startGroup(compareArgs(outputDir))
    const runs = join(experiment, 'runs')
    const first = start()
    await until(() => existsSync(runs) && readdirSync(runs).length > 0)
    await untilSteps(join(runs, readdirSync(runs)[0]!), first, 5)
    process.kill(-first.pid!, 'SIGKILL')
    await until(() => processesOf(outputDir).length === 0)
    expect(runningJobs(experiment)).not.toEqual([])
    const old = new Set(runningJobs(experiment))
    const second = start()
    const ended = new Promise((resolve) => second.on('close', resolve))
    const alive = () => runningJobs(experiment).filter((pid) => !old.has(pid))
    await until(() => alive().length > 0)
    process.kill(alive()[0]!, 'SIGKILL')
    expect(await ended).toBe(0)
    const { code, stdout } = await lowrank(compareArgs(outputDir))
    expect(code).toBe(0)
    expect(figuresOf(stdout, outputDir)).toBe(plain)
    expect(processesOf(outputDir)).toEqual([])
  },
  60_000,
)

test.skipIf(process.platform !== 'linux')(
  'Ctrl-C ends the processes of the jobs; when the caller is killed, they end by themselves',
  async () => {
    for (const signal of ['SIGINT', 'SIGKILL'] as const) {
      const outputDir = join(folder, signal)
      const child = spawn(
        process.execPath,
        [join(root, 'dist/cli.js'), ...compareArgs(outputDir), '--max-steps', '5000'],
        {
          cwd: root,
          stdio: 'ignore',
        },
      )
      const ended = new Promise((resolve) => child.on('close', resolve))
      await until(() => runningJobs(join(outputDir, 'compare')).length > 0)
      child.kill(signal)
      expect(await ended).toBe(signal === 'SIGINT' ? 130 : null)
      // Who was asked has ended its jobs before it ends.
      if (signal === 'SIGKILL') await until(() => processesOf(outputDir).length === 0)
      expect(processesOf(outputDir)).toEqual([])
      expect(jobsOf(join(outputDir, 'compare')).map(({ state }) => state.status)).toEqual(['pending', 'pending'])
    }
    // One whose caller is gone before it has loaded hears nothing of that.
    const job = join(folder, 'SIGINT/compare/jobs/full-seed42-lr5e-5.json')
    const early = fork(join(root, 'dist/job-process.js'), [job], { execArgv: [], stdio: 'ignore' })
    early.disconnect()
    await new Promise((resolve) => early.on('exit', resolve))
    expect(readJson(job)).toMatchObject({ state: { status: 'pending' } })
  },
  60_000,
)

test('what does not fit is not trained, and said; other mistakes are refused', async () => {
  const outputDir = join(folder, 'small')
  const { code, stdout } = await lowrank([...compareArgs(outputDir), '--memory', '2MB'])
  expect(code).toBe(0)
  const { cells } = JSON.parse(stdout) as CompareResult
  expect(cells.map(({ problem }) => problem)).toEqual(
    cells.map(() => expect.stringMatching(/^does not fit: needs \d+ MB$/)),
  )
  expect(jobsOf(join(outputDir, 'compare'))).toEqual([])
  const refusals: [string[], string][] = [
    [['--learning-rates', 'qlora=1e-4'], '--learning-rates.qlora: not among --methods (full, lora)'],
    [['--methods', 'full,dora'], '--methods[1]: found "dora", expected a list of full, lora, qlora'],
    [['--adapter', outputDir], '--adapter: has no meaning here'],
  ]
  for (const [extra, message] of refusals) {
    const refused = await lowrank([...compareArgs(outputDir), ...extra])
    expect(refused.stderr).toContain(message)
    expect(refused.code).toBe(2)
  }
  const { valid: _, ...unjudged } = settings
  const blind = await lowrank(['compare', ...flags({ ...unjudged, model, outputDir })])
  expect(blind.stderr).toContain(
    '--valid: missing. What is trained is compared by its loss on data that it has not seen',
  )
  expect(blind.stderr).toContain('--valid-split, as 10%')
  expect(blind.code).toBe(2)
  const changed = await lowrank([...compareArgs(join(folder, 'plain')), '--max-length', '40'])
  expect(changed.stderr).toContain('with other options (maxLength: 48 -> 40)')
  expect(changed.code).toBe(2)
}, 60_000)
