import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TrainConfigInput } from 'lowrank'
import { expect, test } from 'vitest'
import {
  collect,
  flags,
  last,
  lowrankHere,
  makeTinyModel,
  only,
  readJson,
  readMetrics,
  root,
  sha256,
  temporaryFolder,
  tensorHashes,
  writeData,
} from './support.ts'

/** What transformers makes of each schedule; see `test/golden/make_schedule_golden.py`. */
interface Case {
  readonly options: {
    readonly lr_scheduler_type: string
    readonly lr_scheduler_kwargs?: Readonly<Record<string, number | string>>
    readonly warmup_steps: number
    readonly learning_rate: number
  }
  readonly steps: number
  readonly rates: readonly number[]
}

const { cases } = JSON.parse(readFileSync(join(root, 'test/golden/schedules/golden.json'), 'utf8')) as {
  readonly cases: readonly Case[]
}
/** The last case of each schedule: one with settings, where it has any. */
const chosen = [...new Map(cases.map((one) => [one.options.lr_scheduler_type, one])).values()]

const optimizers = [
  { optim: 'adamw' },
  { optim: 'adamw_bnb_8bit' },
  { optim: 'sgd' },
  { optim: 'sgd', optimArgs: { momentum: 0.9, nesterov: true } },
  { optim: 'adamw_torch', loraplusLrRatio: 16 },
]

const folder = temporaryFolder()
const model = await makeTinyModel(folder)
const data = writeData(folder, { train: 8, valid: 4 })
const common = {
  model,
  train: data.train,
  method: 'lora',
  targetModules: 'all-linear',
  saveStrategy: 'no',
  seed: 7,
  threads: 1,
} as const
const size = { perDeviceTrainBatchSize: 4, maxLength: 48 }

test('every schedule is tried', () => expect(chosen).toHaveLength(10))

test.each(chosen.map((one, i) => [one.options.lr_scheduler_type, one, optimizers[i % optimizers.length]!] as const))(
  'the learning rates of %s',
  async (schedule, { options, steps, rates }, optimizer) => {
    const outputDir = join(folder, schedule)
    // Under the names of transformers.
    await collect({ ...common, ...size, ...optimizer, ...options, outputDir, maxSteps: steps } as TrainConfigInput)
    const found = only(readMetrics(outputDir), 'step').map(({ learningRate }) => learningRate)
    expect(found).toHaveLength(steps)
    found.forEach((rate, step) => expect(Math.abs(rate - rates[step]!), `step ${step}`).toBeLessThan(1e-15))
  },
)

test.each(optimizers)('%j learns', async (optimizer) => {
  const outputDir = join(folder, JSON.stringify(optimizer).replaceAll(/\W/g, ''))
  const learningRate = optimizer.optim === 'sgd' ? 1 : 1e-2
  const run = { ...common, ...size, ...optimizer, outputDir, valid: data.train, learningRate, maxSteps: 12 }
  const events = await collect({
    ...run,
    evalSteps: 12,
    evalOnStart: true,
    lrSchedulerType: 'constant',
  } as TrainConfigInput)
  const [before, after] = only(events, 'eval')
  expect(after!.loss).toBeLessThan(before!.loss - 0.05)
  expect((readJson(join(outputDir, 'run.json')) as { config: object }).config).toMatchObject({
    optim: optimizer.optim.startsWith('adamw') ? expect.stringMatching(/^adamw(-8bit)?$/) : 'sgd',
  })
})

test('noise and smoothing count in training, not in evaluations', async () => {
  const run = async (name: string, extra: Partial<TrainConfigInput>) => {
    const outputDir = join(folder, name)
    const config = { ...common, ...size, outputDir, valid: data.valid, evalOnStart: true, maxSteps: 2, ...extra }
    const events = await collect(config)
    const [start] = only(events, 'eval')
    return {
      evaluated: start!.loss,
      trained: only(events, 'step').map(({ loss }) => loss),
      adapter: tensorHashes(join(outputDir, 'adapter_model.safetensors')),
    }
  }
  const plain = await run('plain', {})
  const noisy = await run('noisy', { neftuneNoiseAlpha: 5 })
  const smooth = await run('smooth', { labelSmoothingFactor: 0.1 })
  expect([noisy.evaluated, smooth.evaluated]).toEqual([plain.evaluated, plain.evaluated])
  for (const { trained, adapter } of [noisy, smooth]) {
    expect(Math.abs(trained[0]! - plain.trained[0]!)).toBeGreaterThan(1e-5)
    expect(adapter).not.toEqual(plain.adapter)
  }
  expect(await run('noisy again', { neftuneNoiseAlpha: 5 })).toEqual(noisy)
  // The same examples in micro-batches of another size.
  const split = await run('split', {
    neftuneNoiseAlpha: 5,
    perDeviceTrainBatchSize: 1,
    gradientAccumulationSteps: 4,
  })
  split.trained.forEach((loss, i) => expect(Math.abs(loss - noisy.trained[i]!)).toBeLessThan(1e-5))
  // And several of them in one row.
  const packed = await run('packed', { neftuneNoiseAlpha: 5, packing: true })
  packed.trained.forEach((loss, i) => expect(Math.abs(loss - noisy.trained[i]!)).toBeLessThan(1e-5))
})

test.each<[string, Partial<TrainConfigInput>]>([
  ['sgd without anything to remember', { optim: 'sgd', learningRate: 1 }],
  ['sgd with momentum on every weight', { method: 'full', optim: 'sgd', optimArgs: { momentum: 0.9 } }],
  [
    'LoRA+, NEFTune, smoothing and a decay',
    {
      loraplusLrRatio: 16,
      neftuneNoiseAlpha: 5,
      labelSmoothingFactor: 0.1,
      lrSchedulerType: 'warmup_stable_decay',
      lrSchedulerKwargs: { numDecaySteps: 3 },
    },
  ],
])('a resumed run ends with the same bytes: %s', async (name, options) => {
  const common = { model, train: data.train, maxSteps: 6, saveSteps: 2, learningRate: 1e-2, threads: 1 }
  const config = { ...common, ...size, ...options }
  const [first, second] = [join(folder, `first ${name}`), join(folder, `second ${name}`)]
  await collect({ ...config, outputDir: first })
  const reported = await collect({ ...config, outputDir: second, resumeFrom: join(first, 'checkpoint-4') })
  const file = options.method === 'full' ? 'model.safetensors' : 'adapter_model.safetensors'
  expect(sha256(join(second, file))).toBe(sha256(join(first, file)))
  expect(only(reported, 'step').map(({ step }) => step)).toEqual([5, 6])
  expect(sha256(join(first, 'checkpoint-4', file))).not.toBe(sha256(join(first, file)))
})

test('settings of optimizer and schedule as flags', async () => {
  const outputDir = join(folder, 'flags')
  const { code, stderr } = await lowrankHere([
    'train',
    ...flags({ ...common, ...size, outputDir, maxSteps: 2, optim: 'sgd', optimArgs: 'momentum=0.9,nesterov=True' }),
    ...flags({ lrSchedulerType: 'polynomial', lrSchedulerKwargs: 'power=2,lr_end=1e-5' }),
  ])
  expect(code, stderr).toBe(0)
  expect((readJson(join(outputDir, 'run.json')) as { config: object }).config).toMatchObject({
    optimArgs: { momentum: 0.9, nesterov: true },
    lrSchedulerKwargs: { power: 2, lrEnd: 1e-5 },
  })
})

test('a setting that a schedule does not have is refused with those it has', async () => {
  const { code, stderr } = await lowrankHere([
    'train',
    ...flags({ ...common, outputDir: join(folder, 'refused'), lrSchedulerType: 'cosine_with_restarts' }),
    ...flags({ lrSchedulerKwargs: 'min_lr=1e-6' }),
  ])
  expect(code).toBe(2)
  expect(stderr).toContain('--lr-scheduler-kwargs.min_lr: unknown; cosine_with_restarts takes numCycles')
  expect(last(stderr.trimEnd().split('\n'))).not.toContain('at ')
})
