import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { parseTrainConfig, trainSchema } from '../config/index.ts'
import { hashFiles } from '../formats/hash.ts'
import {
  changedInputs,
  changedVersions,
  describeInputs,
  hashesOfModel,
  modelSize,
  type RunInputs,
} from './run-inputs.ts'

const config = parseTrainConfig({ model: 'm', train: 't', outputDir: 'o' })
const run: RunInputs = {
  config: JSON.parse(JSON.stringify(config)) as RunInputs['config'],
  versions: { lowrank: '1', node: '20' },
  hashes: { model: 'a'.repeat(64), train: 'b'.repeat(64) },
  threads: 2,
}
const withConfig = (changes: object): RunInputs => ({ ...run, config: { ...run.config, ...changes } })

describe('what decides the course of training', () => {
  test('is every option but those that only decide what is reported and kept', () => {
    const keys = Object.keys(trainSchema.shape)
    const decides = (key: string): boolean => changedInputs(run, withConfig({ [key]: 'another' })).length > 0
    expect(keys.filter((key) => !decides(key)).sort()).toEqual([
      'activations',
      'adapter',
      'chatTemplate',
      'classify',
      'dataCache',
      'evalOnStart',
      'evalSteps',
      'evalStrategy',
      'greaterIsBetter',
      'labels',
      'loggingDir',
      'loggingSteps',
      'matmulPrecision',
      'maxNewTokens',
      'maxShardSize',
      'memory',
      'metricExamples',
      'metricForBestModel',
      'metricModule',
      'metrics',
      'model',
      'outputDir',
      'overwriteOutputDir',
      'perDeviceEvalBatchSize',
      'reportTo',
      'resume',
      'resumeAnyway',
      'resumeFrom',
      'samples',
      'saveDtype',
      'saveSteps',
      'saveStrategy',
      'saveTotalLimit',
      'schema',
      'threads',
      'train',
      'valid',
      'webhookUrl',
    ])
    expect(keys.length).toBeGreaterThan(60)
  })

  test('is shown as it was and as it is', () => {
    const now = { ...withConfig({ learningRate: 1, targetModules: ['a'], valid: 'v' }), threads: 4 }
    const hashes = { ...run.hashes, train: 'c'.repeat(64), valid: 'd'.repeat(64) }
    expect(changedInputs(run, { ...now, hashes })).toEqual([
      'targetModules: ["q_proj","v_proj"] -> ["a"]',
      'learningRate: 0.00005 -> 1',
      'train, its content: "t" (SHA-256 bbbbbbbbbbbb...) -> "t" (SHA-256 cccccccccccc...)',
      'threads: 2 -> 4 (with --threads 2 it is as it was)',
    ])
  })

  test.each([{ loadBestModelAtEnd: true }, { earlyStoppingPatience: 2 }])(
    'includes what is evaluated, and when, where evaluations decide what is kept: %o',
    (options) => {
      const before = withConfig({ ...options, valid: 'v', evalStrategy: 'steps', evalSteps: 5 })
      const now = { ...withConfig({ ...options, valid: 'v', evalStrategy: 'steps', evalSteps: 6 }) }
      const hashes = { ...run.hashes, valid: 'd'.repeat(64) }
      expect(changedInputs(before, { ...now, hashes })).toEqual([
        'evalSteps: 5 -> 6',
        'valid, its content: none -> "v" (SHA-256 dddddddddddd...)',
      ])
    },
  )

  test('is not an option that the earlier version did not have, left at its default', () => {
    const { maxGradNorm: _, ...older } = run.config
    expect(changedInputs({ ...run, config: older }, run)).toEqual([])
    expect(changedInputs({ ...run, config: older }, withConfig({ maxGradNorm: 2 }))).toEqual(['maxGradNorm: 1 -> 2'])
  })

  test('includes the index of a model in parts, unless the version that recorded the run did not record it', () => {
    const withIndex = (index: string): RunInputs => ({
      ...run,
      hashes: { ...run.hashes, modelIndex: index.repeat(64) },
    })
    expect(changedInputs(withIndex('e'), withIndex('f'))).toEqual([
      'model, its model.safetensors.index.json: "m" (SHA-256 eeeeeeeeeeee...) -> "m" (SHA-256 ffffffffffff...)',
    ])
    expect(changedInputs(withIndex('e'), run)).toHaveLength(1)
    expect(changedInputs(run, withIndex('e'))).toEqual([])
  })

  test('is not the version, which is reported separately', () => {
    expect(changedVersions(run, { ...run, versions: { lowrank: '2', node: '20' } })).toEqual(['lowrank 1 -> 2'])
  })
})

describe('the files of a model', () => {
  const folder = mkdtempSync(join(tmpdir(), 'lowrank-inputs-'))
  afterAll(() => rmSync(folder, { recursive: true }))
  const index = 'model.safetensors.index.json'
  const [one, inside] = ['model-00001-of-00002.safetensors', 'more/model-00002-of-00002.safetensors']
  const write = (name: string, text: string): void => writeFileSync(join(folder, name), text)
  const hashesNow = async (): Promise<RunInputs['hashes']> =>
    (
      await describeInputs(
        { ...config, model: folder },
        1,
        { files: { train: [{ path: join(folder, 'config.json'), weight: 1 }], valid: undefined } },
        await hashesOfModel(folder),
      )
    ).hashes

  test('are those that decide it, with an index the parts that it names; earlier versions hashed them without', async () => {
    mkdirSync(join(folder, 'more'))
    for (const name of ['config.json', one, inside, 'unread.txt']) write(name, name)
    write(index, JSON.stringify({ weight_map: { a: one, b: inside, c: inside } }))
    const before = await hashesNow()
    expect(before['model']).toBe(await hashFiles(['config.json', one].map((name) => join(folder, name))))
    expect(await modelSize(folder)).toBe(
      ['config.json', one, index, inside].reduce((sum, name) => sum + readFileSync(join(folder, name)).length, 0),
    )
    write('unread.txt', 'changed')
    expect(await hashesNow()).toEqual(before)
    for (const [name, key] of [
      [index, 'modelIndex'],
      [inside, 'modelIndex'],
      [one, 'model'],
    ] as const) {
      const text = readFileSync(join(folder, name), 'utf8')
      write(name, `${text} `)
      const now = await hashesNow()
      expect(Object.keys(now).filter((one) => now[one] !== before[one])).toEqual([key])
      write(name, text)
    }
  })

  test('have no index where there is one file, which is read instead', async () => {
    write('model.safetensors', '')
    expect(Object.keys(await hashesNow())).toEqual(['model', 'train'])
  })
})
