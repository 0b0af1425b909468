import { mkdirSync, readdirSync, watch } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { TrainEvent } from 'lowrank'
import { beforeAll, expect, test } from 'vitest'
import {
  collect,
  flags,
  listFiles,
  lowrank,
  makeTinyModel,
  readJson,
  readMetrics,
  sha256,
  startLowrank,
  temporaryFolder,
  writeData,
  type Running,
} from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder, { train: 24, valid: 4 })
const adapterFile = 'adapter_model.safetensors'
/** Everything that has a state is on: dropout, accumulation, a schedule, the best weights, evaluations. */
const settings = {
  ...data,
  maxLength: 64,
  maxSteps: 150,
  learningRate: 2e-2,
  loraDropout: 0.2,
  perDeviceTrainBatchSize: 2,
  gradientAccumulationSteps: 2,
  warmupSteps: 4,
  lrSchedulerType: 'cosine',
  evalSteps: 7,
  loadBestModelAtEnd: true,
  loggingSteps: 5,
  saveSteps: 2,
  saveTotalLimit: 3,
  threads: 1,
} as const
let common: typeof settings & { readonly model: string }
beforeAll(async () => {
  common = { ...settings, model: await makeTinyModel(folder) }
})

/** Numbers from 0 to 1, the same in each run of the test. */
function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
}

/** Resolves when a file or folder of this name is made or renamed in `outputDir` for the `count`th time. */
function appears(outputDir: string, name: RegExp, { child }: Running, count = 1): Promise<void> {
  return new Promise((resolve) => {
    let left = count
    const watcher = watch(outputDir, (_, found) => {
      if (found !== null && name.test(found) && --left === 0) done()
    })
    const done = (): void => {
      watcher.close()
      resolve()
    }
    child.once('close', done)
  })
}

/** Ends a process as the kernel does when memory runs out: it can do nothing about it. */
async function killed({ child, ended }: Running): Promise<boolean> {
  child.kill('SIGKILL')
  await ended
  return child.signalCode === 'SIGKILL'
}

/** What a run tells, as far as it does not depend on time or machine. */
function story(outputDir: string): unknown[] {
  const told: readonly TrainEvent[] = readMetrics(outputDir)
  return told.flatMap((event): unknown[] => {
    if (event.type === 'step')
      return [['step', event.step, event.epoch, event.loss, event.learningRate, event.gradNorm]]
    if (event.type === 'log') return [['log', event.step, event.loss]]
    return event.type === 'eval' ? [['eval', event.step, event.loss, event.best]] : []
  })
}

test('killed at 20 random moments, a run ends with the bytes of one that never was', async () => {
  const [never, often] = [join(folder, 'never'), join(folder, 'often')]
  await collect({ ...common, outputDir: never })

  mkdirSync(often)
  const next = random(5)
  let [kills, whileWriting] = [0, 0]
  for (let attempt = 0; attempt < 20; attempt++) {
    const run = startLowrank(['train', ...flags({ ...common, outputDir: often, resume: true })])
    if (attempt % 4 === 0) {
      // Anywhere: also before there is a model, and while the folder is put in order.
      await sleep(next() * 1500)
    } else {
      // Within a checkpoint, or soon after one.
      await appears(often, /^checkpoint-\d+\.tmp$/, run, 1 + Math.floor(next() * 3))
      await sleep(next() * (attempt % 4 === 1 ? 60 : 6))
    }
    if (await killed(run)) kills++
    if (readdirSync(often).some((name) => /^checkpoint-\d+\.tmp$/.test(name))) whileWriting++
    // Every checkpoint with its name is whole.
    expect((await run.ended).stderr).not.toContain('going back')
  }
  expect(kills).toBe(20)
  expect(whileWriting).toBeGreaterThanOrEqual(4)
  console.log(`kill -9: 20 of 20, ${whileWriting} while a checkpoint was written`)

  const { code, stderr } = await lowrank(['train', ...flags({ ...common, outputDir: often, resume: true })])
  expect(code, stderr).toBe(0)
  expect(stderr).toMatch(/^resuming after step \d+, from .*checkpoint-\d+$/m)
  expect(sha256(join(often, adapterFile))).toBe(sha256(join(never, adapterFile)))
  expect(story(often)).toEqual(story(never))
  expect(listFiles(often)).toEqual(listFiles(never))

  const [one, other] = [never, often].map((path) => readJson(join(path, 'run.json')) as Record<string, unknown>)
  expect(other).toMatchObject({ status: 'done', result: one?.['result'] })
  const resumed = other?.['resumed'] as readonly { step: number }[]
  expect(resumed.length).toBeGreaterThan(5)
  expect(resumed.map(({ step }) => step)).toEqual(resumed.map(({ step }) => step).sort((a, b) => a - b))
}, 300_000)

test('killed while the result is written, it is written by the run that goes on', async () => {
  const [outputDir, never] = [join(folder, 'end'), join(folder, 'never-6')]
  const options = { ...common, maxSteps: 6, outputDir, resume: true }
  mkdirSync(outputDir)
  const run = startLowrank(['train', ...flags(options)])
  await appears(outputDir, /^\.adapter_model\.safetensors\..*\.tmp$/, run)
  expect(await killed(run)).toBe(true)

  for (const folder of [outputDir, never]) await collect({ ...options, outputDir: folder })
  expect(sha256(join(outputDir, adapterFile))).toBe(sha256(join(never, adapterFile)))
  expect(listFiles(outputDir)).toEqual(listFiles(never))
  expect(story(outputDir)).toEqual(story(never))
})
