import { appendFileSync, cpSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TrainConfigInput, TrainEvent } from 'lowrank'
import { beforeAll, describe, expect, test } from 'vitest'
import { parseTrainConfig } from '../../src/config/index.ts'
import { runFinetune } from '../../src/tasks/finetune.ts'
import {
  collect,
  editCheckpoint,
  flags,
  hashFolder,
  last,
  listFiles,
  lowrank,
  makeTinyModel,
  only,
  readJson,
  readMetrics,
  sha256,
  temporaryFolder,
  tensorShapes,
  writeData,
} from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder, { train: 12, valid: 4 })
const adapterFile = 'adapter_model.safetensors'
let common: TrainConfigInput
/** A model stored in bf16: what is saved of it is rounded. */
let rounded: string
/** A run of six steps with a checkpoint after each second. */
let whole: string
let events: TrainEvent[]

beforeAll(async () => {
  const model = await makeTinyModel(folder)
  // Large enough for moments in 8 bits.
  rounded = await makeTinyModel(join(folder, 'rounded'), { torch_dtype: 'bfloat16', intermediate_size: 256 })
  whole = join(folder, 'whole')
  common = {
    model,
    ...data,
    outputDir: whole,
    maxLength: 64,
    maxSteps: 6,
    learningRate: 2e-2,
    loraDropout: 0.2,
    perDeviceTrainBatchSize: 2,
    gradientAccumulationSteps: 2,
    saveSteps: 2,
    evalSteps: 2,
    threads: 1,
  }
  events = await collect({ ...common, samples: 1 })
})

/** What a run leaves, but for the record of its course. */
function results(outputDir: string): Record<string, string> {
  const kept = Object.entries(hashFolder(outputDir)).filter(
    ([name]) => !/^(run\.json|metrics\.jsonl|report\.html|checkpoint-)/.test(name),
  )
  expect(kept.length).toBeGreaterThan(3)
  return Object.fromEntries(kept)
}

/** A copy of the finished run, to go on from and to damage. */
function copy(name: string): string {
  const outputDir = join(folder, name)
  cpSync(whole, outputDir, { recursive: true })
  return outputDir
}

/** The error that a run is refused with. */
async function refused(config: TrainConfigInput): Promise<{ code: string; message: string; hint: string }> {
  return await collect(config).then(
    () => expect.fail('the run was not refused'),
    (error: unknown) => error as { code: string; message: string; hint: string },
  )
}

const warnings = (told: readonly TrainEvent[]): string[] => only(told, 'warning').map(({ message }) => message)
const steps = (told: readonly TrainEvent[]): number[] => only(told, 'step').map(({ step }) => step)

describe.each<[string, Partial<TrainConfigInput>]>([
  ['an adapter with everything that is trained beside it', { bias: 'all', modulesToSave: ['lm_head'], optim: 'adamw' }],
  ['an adapter on a quantized base', { method: 'qlora', lrSchedulerType: 'constant_with_warmup', warmupSteps: 3 }],
  [
    'the best weights, which were found before',
    { loadBestModelAtEnd: true, learningRate: 100, lrSchedulerType: 'constant', maxGradNorm: 0 },
  ],
  ['recomputed activations', { activations: 'recompute', lrSchedulerType: 'cosine' }],
  ['every weight, stored in bf16, moments in 8 bits', { method: 'full', optim: 'adamw-8bit', learningRate: 1e-2 }],
  ['every weight, stored in f32, the best kept', { method: 'full', saveDtype: 'f32', loadBestModelAtEnd: true }],
])('a run that goes on from a checkpoint ends with the same bytes: %s', (name, options) => {
  test('in another folder', async () => {
    const first = join(folder, `first ${name}`)
    const second = join(folder, `second ${name}`)
    const model = options.method === 'full' ? rounded : common.model
    const config = { ...common, model, maxSteps: 4, ...options }
    await collect({ ...config, outputDir: first })
    const told = await collect({ ...config, outputDir: second, resumeFrom: join(first, 'checkpoint-2') })
    expect(steps(told)).toEqual([3, 4])
    expect(only(told, 'resume')).toEqual([{ type: 'resume', step: 2, path: join(first, 'checkpoint-2') }])
    expect(results(second)).toEqual(results(first))
    const { result } = readJson(join(first, 'run.json')) as { result: object }
    const done = last(only(told, 'done'))
    expect(done).toMatchObject(result)
    // Weights of a step that the run did not do itself.
    if (name.endsWith('found before')) expect(done.best?.step).toBeLessThanOrEqual(2)
  })
})

test('a checkpoint has the moments, the weights that the files beside it round, and the best', async () => {
  const outputDir = join(folder, 'rounded out')
  await collect({ ...common, model: rounded, method: 'full', outputDir, loadBestModelAtEnd: true, maxSteps: 2 })
  const path = join(outputDir, 'checkpoint-2/optimizer.safetensors')
  const names = Object.keys(tensorShapes(path))
  const trained = Object.keys(tensorShapes(join(outputDir, 'model.safetensors')))
  const kinds = ['weight.%', 'best.%', 'state.%.exp_avg', 'state.%.exp_avg_sq']
  expect(names.toSorted()).toEqual(kinds.flatMap((kind) => trained.map((name) => kind.replace('%', name))).sort())
})

test('a run that was cancelled within an evaluation evaluates first when it goes on', async () => {
  const config = { ...common, perDeviceEvalBatchSize: 1, evalSteps: 1, loadBestModelAtEnd: true, maxSteps: 4 }
  const [outputDir, never] = [join(folder, 'cancelled'), join(folder, 'not cancelled')]
  const told: TrainEvent[] = []
  let asked = 0
  const run = async (): Promise<void> => {
    // Between two of the four batches of the evaluation after step 3.
    const cancelled = (): boolean => last([0, ...steps(told)]) === 3 && ++asked > 2
    for await (const event of runFinetune(parseTrainConfig({ ...config, outputDir }), { cancelled })) told.push(event)
  }
  await expect(run()).rejects.toMatchObject({ code: 'cancelled', hint: expect.stringContaining('--resume') })
  expect(steps(told)).toEqual([1, 2, 3])
  expect(only(told, 'eval').map(({ step }) => step)).toEqual([1, 2])

  const rest = await collect({ ...config, outputDir, resume: true })
  expect(only(rest, 'eval').map(({ step }) => step)).toEqual([3, 4])
  await collect({ ...config, outputDir: never })
  expect(results(outputDir)).toEqual(results(never))
  const evaluations = (path: string): unknown[] => only(readMetrics(path), 'eval').map(({ step, loss }) => [step, loss])
  expect(evaluations(outputDir)).toEqual(evaluations(never))
})

test('a finished run that is asked to go on makes its last steps again', async () => {
  const outputDir = copy('finished')
  const before = {
    run: readJson(join(outputDir, 'run.json')) as Record<string, unknown>,
    metrics: readMetrics(outputDir),
  }
  const told = await collect({ ...common, outputDir, samples: 1, resumeFrom: join(outputDir, 'checkpoint-4') })
  expect(steps(told)).toEqual([5, 6])
  // Told again, to be compared with what is completed after training.
  expect(only(told, 'sample').map(({ when }) => when)).toEqual(['before', 'after'])
  expect(results(outputDir)).toEqual(results(whole))
  const metrics = readMetrics(outputDir)
  for (const type of ['step', 'eval', 'sample', 'done'] as const) {
    expect(only(metrics, type)).toHaveLength(only(before.metrics, type).length)
  }
  const run = readJson(join(outputDir, 'run.json')) as Record<string, unknown>
  expect(run).toMatchObject({
    status: 'done',
    startedAt: before.run['startedAt'],
    result: before.run['result'],
    resumed: [{ at: expect.any(String), step: 4, path: join(outputDir, 'checkpoint-4') }],
  })
  const { seconds } = readJson(join(outputDir, 'checkpoint-4/trainer_state.json')) as { seconds: number }
  expect(run['seconds']).toBeGreaterThan(seconds)
})

test('with nothing to go on from, a run starts and says so', async () => {
  const outputDir = join(folder, 'nothing yet')
  const told = await collect({ ...common, outputDir, resume: true })
  expect(only(told, 'status').map(({ message }) => message)).toContain(
    `there is no checkpoint in ${outputDir} yet: starting with the first step`,
  )
  expect(results(outputDir)).toEqual(results(whole))
})

describe('a damaged checkpoint', () => {
  const edit = (path: string, change: (bytes: Buffer) => Buffer): void =>
    writeFileSync(path, change(readFileSync(path)))
  const damages: readonly [string, string, (path: string) => void][] = [
    ['is cut', 'optimizer.safetensors', (path) => truncateSync(path, 1000)],
    ['has another byte', adapterFile, (path) => edit(path, (bytes) => bytes.fill(bytes.at(-1)! ^ 1, bytes.length - 1))],
    ['is missing', adapterFile, (path) => rmSync(path)],
    ['is missing', 'trainer_state.json', (path) => rmSync(path)],
    ['is no JSON', 'trainer_state.json', (path) => truncateSync(path, 500)],
    [
      'has another digit',
      'trainer_state.json',
      (path) =>
        edit(path, (bytes) => {
          const changed = bytes.toString().replace(/(?<="lossTotal": )\d/, (digit) => String(9 - Number(digit)))
          return Buffer.from(changed)
        }),
    ],
  ]

  test.each(damages)('%s: %s; it is named, and the one before is used', async (what, name, damage) => {
    const outputDir = copy(`damaged ${what} ${name}`)
    damage(join(outputDir, 'checkpoint-6', name))
    const told = await collect({ ...common, outputDir, resume: true })
    const [first] = warnings(told)
    expect(first).toContain(join(outputDir, 'checkpoint-6', name))
    expect(first).toContain(`; going back to ${join(outputDir, 'checkpoint-4')}`)
    expect(steps(told)).toEqual([5, 6])
    expect(results(outputDir)).toEqual(results(whole))
    // What was damaged is written again.
    for (const file of [adapterFile, 'optimizer.safetensors']) {
      const [made, first] = [outputDir, whole].map((path) => sha256(join(path, 'checkpoint-6', file)))
      expect(made, file).toBe(first)
    }
  })

  test('that was written again is whole', async () => {
    const outputDir = copy('damaged and made again')
    rmSync(join(outputDir, 'checkpoint-6/trainer_state.json'))
    for (const from of [4, 6]) {
      const told = await collect({ ...common, outputDir, resume: true })
      expect(only(told, 'resume')[0]?.step).toBe(from)
      expect(warnings(told).filter((text) => text.includes('going back'))).toHaveLength(from === 4 ? 1 : 0)
    }
  })

  test.each<[string, unknown]>([
    ['state.step', -1],
    ['state.evaluated', 7],
    ['state.logged', 1e15],
    ['state.best.step', 9],
    ['state.skipped', 'none'],
    ['state.labelTokens', 1e9],
    ['state.watch', [null]],
    ['optimizerSteps', 1e300],
    ['memory.headRows', 0],
    ['seconds', -1],
    ['inputs.hashes', { model: 1 }],
  ])('that is right by its hashes and says what cannot be, in %s: %j', async (field, value) => {
    const outputDir = copy(`forged ${field}`)
    const folder6 = join(outputDir, 'checkpoint-6')
    editCheckpoint(folder6, () => {
      const path = join(folder6, 'trainer_state.json')
      const record = readJson(path) as Record<string, unknown>
      const keys = field.split('.')
      const parent = keys.slice(0, -1).reduce((inner, key) => inner[key] as Record<string, unknown>, record)
      parent[last(keys)] = value
      writeFileSync(path, JSON.stringify(record))
    })
    const error = await refused({ ...common, outputDir, resumeFrom: folder6 })
    expect(error).toMatchObject({ code: 'checkpoint', message: expect.stringContaining(`trainer_state.json`) })
    expect(error.message).toContain(field)
  })

  test('that was asked for by its path is refused', async () => {
    const outputDir = copy('damaged path')
    const resumeFrom = join(outputDir, 'checkpoint-6')
    truncateSync(join(resumeFrom, adapterFile), 100)
    const before = hashFolder(outputDir)
    const { code, stderr } = await lowrank(['train', ...flags({ ...asFlags(), outputDir, resumeFrom })])
    expect(code).toBe(2)
    expect(stderr).toMatch(
      /^error: .*checkpoint-6\/adapter_model\.safetensors: damaged: it has 100 bytes, \d+ were written$/m,
    )
    expect(hashFolder(outputDir)).toEqual(before)
  })

  test('is no reason to begin again where there is no other', async () => {
    const outputDir = copy('all damaged')
    for (const step of [2, 4, 6]) truncateSync(join(outputDir, `checkpoint-${step}`, adapterFile), 100)
    const before = hashFolder(outputDir)
    const error = await refused({ ...common, outputDir, resume: true })
    expect(error).toMatchObject({ code: 'checkpoint', message: expect.stringContaining('no checkpoint in') })
    for (const step of [2, 4, 6]) expect(error.message).toContain(`checkpoint-${step}/${adapterFile}: damaged`)
    expect(hashFolder(outputDir)).toEqual(before)
  })
})

/** The options of the run as flags. */
function asFlags(): Record<string, string | number | boolean> {
  return common as unknown as Record<string, string | number | boolean>
}

describe('what has changed since', () => {
  const from = (): string => join(whole, 'checkpoint-4')

  test('is refused with the difference, and nothing is touched', async () => {
    const outputDir = copy('changed')
    const train = join(folder, 'other.jsonl')
    cpSync(data.train, train)
    appendFileSync(train, '{"prompt": "a", "completion": "b"}\n')
    const before = hashFolder(outputDir)
    const changed = {
      ...asFlags(),
      train,
      learningRate: 0.5,
      maxSteps: 8,
      threads: 2,
      activations: 'recompute',
      outputDir,
    }
    const { code, stderr } = await lowrank(['train', ...flags({ ...changed, resume: true })])
    expect(code).toBe(2)
    const plan = only(events, 'plan')[0]
    expect(stderr).toContain(
      `error: cannot resume from ${join(outputDir, 'checkpoint-6')}: the run has changed since:\n`,
    )
    expect(stderr).toContain('\n  learningRate: 0.02 -> 0.5\n')
    expect(stderr).toContain('\n  maxSteps: 6 -> 8\n')
    expect(stderr).toMatch(
      /^ {2}train, its content: ".*train\.jsonl" \(SHA-256 \w{12}\.\.\.\) -> ".*other\.jsonl" \(SHA-256/m,
    )
    expect(stderr).toContain(`\n  activations: ${plan?.activations} -> recompute\n`)
    expect(stderr).toContain('\n  threads: 1 -> 2 (with --threads 1 it is as it was)\n')
    expect(stderr).toMatch(/^hint: .*--resume-anyway/m)
    expect(hashFolder(outputDir)).toEqual(before)
  })

  test('is told, and used, with resumeAnyway', async () => {
    const outputDir = join(folder, 'anyway')
    const told = await collect({ ...common, outputDir, maxSteps: 8, resumeFrom: from(), resumeAnyway: true })
    expect(warnings(told)).toEqual([`the run has changed since ${from()}:\n  maxSteps: 6 -> 8`])
    expect(steps(told)).toEqual([5, 6, 7, 8])
  })

  test('may be where files lie, what is told and what is kept', async () => {
    const [outputDir, train, model] = [join(folder, 'free'), join(folder, 'moved.jsonl'), join(folder, 'moved')]
    cpSync(data.train, train)
    cpSync(common.model, model, { recursive: true })
    const free = {
      train,
      model,
      outputDir,
      saveSteps: 1,
      saveTotalLimit: 1,
      loggingSteps: 1,
      samples: 0,
      memory: '64GB',
    }
    const told = await collect({ ...common, ...free, resumeFrom: from() })
    expect(warnings(told)).toEqual([])
    expect(hashFolder(outputDir)[adapterFile]).toBe(hashFolder(whole)[adapterFile])
    expect(listFiles(outputDir).filter((name) => name.endsWith('trainer_state.json'))).toEqual([
      'checkpoint-6/trainer_state.json',
    ])
  })

  test('is not how much memory is free: the choice that was made is kept, or refused', async () => {
    const told = await collect({ ...common, outputDir: join(folder, 'kept choice'), resumeFrom: from() })
    const choice = (all: readonly TrainEvent[]): unknown => {
      const plan = only(all, 'plan')[0]
      return [plan?.activations, plan?.expandWeights, plan?.headRows, plan?.streamed]
    }
    expect(choice(told)).toEqual(choice(events))
    const error = await refused({ ...common, outputDir: join(folder, 'bound'), memory: '1MB', resumeFrom: from() })
    expect(error).toMatchObject({ code: 'config', hint: expect.stringContaining('resumeAnyway') })
    expect(error.message).toContain('the plan of this run takes')
  })
})

describe('the checkpoints of a folder', () => {
  test('count across a resume, and those after the one that a run goes on from are removed', async () => {
    const outputDir = copy('limited')
    const told = await collect({ ...common, outputDir, resumeFrom: join(outputDir, 'checkpoint-2'), saveTotalLimit: 2 })
    expect(warnings(told)[0]).toMatch(
      /^removed, since the run continues from .*checkpoint-2: .*checkpoint-4, .*checkpoint-6$/,
    )
    expect(steps(told)).toEqual([3, 4, 5, 6])
    const kept = listFiles(outputDir).filter((name) => name.endsWith('trainer_state.json'))
    expect(kept).toEqual(['checkpoint-4/trainer_state.json', 'checkpoint-6/trainer_state.json'])
    expect(results(outputDir)).toEqual(results(whole))
  })

  test('are removed by a run that does not go on from them, which says so', async () => {
    const outputDir = copy('anew')
    const told = await collect({ ...common, outputDir, maxSteps: 1, saveStrategy: 'no' })
    expect(warnings(told)[0]).toMatch(/^removed of an earlier run: .*checkpoint-2, .*checkpoint-4, .*checkpoint-6$/)
    expect(listFiles(outputDir).filter((name) => name.startsWith('checkpoint'))).toEqual([])
  })

  test('that a killed run had half replaced or half removed are put right', async () => {
    const outputDir = copy('half')
    renameSync(join(outputDir, 'checkpoint-6'), join(outputDir, 'checkpoint-6.old'))
    cpSync(join(outputDir, 'checkpoint-4'), join(outputDir, 'checkpoint-6.tmp'), { recursive: true })
    writeFileSync(join(outputDir, '.run.json.0123abcd.tmp'), '{')
    const told = await collect({ ...common, outputDir, resume: true })
    expect(only(told, 'resume')[0]?.step).toBe(6)
    expect(listFiles(outputDir)).toEqual(listFiles(whole))
  })
})

describe('what a run of another method left in the folder is removed', () => {
  const files = { adapter: ['adapter_config.json', adapterFile], model: ['config.json', 'model.safetensors'] }
  const present = (outputDir: string): string[] =>
    [...files.adapter, ...files.model].filter((name) => listFiles(outputDir).includes(name))

  test('so that it has an adapter or a model, not both', async () => {
    const outputDir = join(folder, 'both')
    const short = { ...common, outputDir, maxSteps: 1, saveStrategy: 'no', samples: 0 } as const
    await collect(short)
    expect(present(outputDir)).toEqual(files.adapter)
    const told = await collect({ ...short, method: 'full' })
    expect(warnings(told).join()).toMatch(/removed the adapter of an earlier run: .*adapter_model\.safetensors/)
    expect(present(outputDir)).toEqual(files.model)
    expect(listFiles(outputDir)).not.toContain('README.md')
    await collect(short)
    expect(present(outputDir)).toEqual(files.adapter)
  })
})
