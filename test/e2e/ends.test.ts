import { spawn } from 'node:child_process'
import { existsSync, openSync, closeSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import {
  endless,
  flags,
  last,
  listFiles,
  makeTinyModel,
  type Outcome,
  only,
  readJson,
  readMetrics,
  root,
  runScript,
  startLowrank,
  temporaryFolder,
  untilSteps,
  writeData,
} from './support.ts'

// Ends of the process that nobody has prepared. Whatever ends it: its own exit code, no abort, and a checkpoint of a run that has learned.

const folder = temporaryFolder()
const data = writeData(folder)
let tiny: string
beforeAll(async () => {
  tiny = await makeTinyModel(folder)
})

const config = (outputDir: string): object => ({ ...endless, model: tiny, train: data.train, outputDir })

const script = (text: string): Promise<Outcome> =>
  runScript(`import { evaluate, finetune, loadModel } from 'lowrank';${text}`, 45)

/** The step of the only checkpoint of a run, which says that it was cancelled. */
function savedStep(outputDir: string): number {
  expect(readJson(join(outputDir, 'run.json'))).toMatchObject({ status: 'cancelled' })
  const [state] = listFiles(outputDir).filter((path) => path.endsWith('trainer_state.json'))
  return Number(/^checkpoint-(\d+)\//.exec(state ?? '')?.[1])
}

test.each([
  ['process.exit', 'process.exit(7)', 7, ''],
  ['an error that nobody catches', `setTimeout(() => { throw new Error('mine') })`, 1, 'Error: mine'],
  ['a promise that nobody awaits', `Promise.reject(new Error('mine'))`, 1, 'Error: mine'],
])('%s of the caller, while steps are computed', async (name, end, code, said) => {
  const outputDir = join(folder, name.replaceAll(' ', '-'))
  const found = await script(
    `for await (const event of finetune(${JSON.stringify(config(outputDir))})) if (event.type === 'step' && event.step === 3) ${end}`,
  )
  expect(found.code, found.stderr).toBe(code)
  expect(found.stderr).toContain(said)
  expect(found.stderr).not.toMatch(/Napi|terminate/)
  expect(savedStep(outputDir)).toBeGreaterThanOrEqual(3)
})

test.each([
  [
    'generates',
    `const loaded = await loadModel({ model }); const work = loaded.generate('Ticket from', { maxNewTokens: 5000 });`,
  ],
  ['evaluates', `const work = evaluate({ model, data, perDeviceEvalBatchSize: 1 });`],
])('process.exit while a model %s, at whatever moment', async (_, work) => {
  for (const milliseconds of [150, 330, 610]) {
    const given = `const [model, data] = ${JSON.stringify([tiny, data.train])};`
    const found = await script(
      `${given}${work} setTimeout(() => process.exit(5), ${milliseconds}); await work; await new Promise(() => {})`,
    )
    expect(found.code, found.stderr).toBe(5)
    expect(found.stderr).toBe('')
  }
})

test('a model that was not closed keeps no process alive', async () => {
  const given = `const model = await loadModel({ model: ${JSON.stringify(tiny)} });`
  const { code, stdout } = await script(
    `${given} await model.generate('Ticket', { maxNewTokens: 2 }); console.log('made')`,
  )
  expect([code, stdout]).toEqual([0, 'made\n'])
})

test('a run whose events nobody takes any more stops, and does not keep the process alive', async () => {
  const outputDir = join(folder, 'abandoned')
  const { code, stderr } = await script(
    `const run = finetune(${JSON.stringify(config(outputDir))});
     for (let i = 0; i < 12; i++) await run.next();
     await new Promise((resolve) => setTimeout(resolve, 4000))`,
  )
  expect(code, stderr).toBe(0)
  // Far fewer than it could have computed in the time.
  expect(savedStep(outputDir)).toBeLessThan(150)
})

test.each([
  ['SIGHUP', 129],
  ['SIGTERM', 143],
] as const)('%s is heeded as Ctrl-C is, with its own exit code', async (signal, expected) => {
  const outputDir = join(folder, signal)
  const { child, ended } = startLowrank(['train', ...flags({ ...endless, model: tiny, train: data.train, outputDir })])
  await untilSteps(outputDir, child)
  child.kill(signal)
  const { code, stderr } = await ended
  expect(code, stderr).toBe(expected)
  expect(savedStep(outputDir)).toBe(last(only(readMetrics(outputDir), 'step')).step)
})

const command = (outputDir: string): string[] => [
  join(root, 'dist/cli.js'),
  'train',
  '--json',
  ...flags({ ...endless, model: tiny, train: data.train, outputDir }),
]

test('a reader that goes away (2>&1 | head) ends the run with a checkpoint', async () => {
  const outputDir = join(folder, 'head')
  const child = spawn(process.execPath, command(outputDir), { stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = new Promise((resolve) => child.once('exit', resolve))
  await untilSteps(outputDir, child)
  child.stdout.destroy()
  child.stderr.destroy()
  expect(await ended).toBe(141)
  expect(savedStep(outputDir)).toBe(last(only(readMetrics(outputDir), 'step')).step)
})

test.skipIf(!existsSync('/dev/full'))(
  'standard output on a full disk is an error in words, and ends the run with a checkpoint',
  async () => {
    const outputDir = join(folder, 'full')
    const full = openSync('/dev/full', 'w')
    const child = spawn(process.execPath, command(outputDir), { stdio: ['ignore', full, 'pipe'] })
    closeSync(full)
    let stderr = ''
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    expect(await new Promise((resolve) => child.once('close', resolve))).toBe(1)
    expect(stderr).toMatch(/^error: cannot write to standard output: .*ENOSPC/m)
    expect(stderr).not.toMatch(/^\s+at /m)
  },
)
