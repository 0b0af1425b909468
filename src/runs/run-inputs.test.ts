import { describe, expect, test } from 'vitest'
import { parseTrainConfig, trainSchema } from '../config/index.ts'
import { changedInputs, changedVersions, type RunInputs } from './run-inputs.ts'

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
      'evalOnStart',
      'evalSteps',
      'evalStrategy',
      'loggingDir',
      'loggingSteps',
      'maxShardSize',
      'memory',
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

  test('is not the version, which is told apart', () => {
    expect(changedVersions(run, { ...run, versions: { lowrank: '2', node: '20' } })).toEqual(['lowrank 1 -> 2'])
  })
})
