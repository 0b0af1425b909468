import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  loadConfigFile,
  parseTrainConfig,
  quantizationOf,
  trainOptions,
  unusedOptions,
  type Source,
  type TrainConfig,
} from './index.ts'

const required = { model: 'm', train: 't.jsonl', outputDir: 'out' }
const fourBits = { bnb_4bit_quant_type: 'fp4', bnb_4bit_use_double_quant: false, bnb_4bit_block_size: 128 } as const
const lora = { r: 16, lora_alpha: 32, target_modules: ['q_proj'], lora_dropout: 0.1, bias: 'all' } as const

test.each([
  [{}, []],
  [{ method: 'full' }, []],
  [{ method: 'full', saveDtype: 'bf16' }, []],
  // Equal to the default: nothing was asked.
  [{ method: 'full', r: 8, bias: 'none' }, []],
  [{ method: 'full', r: 16 }, ['method full trains every weight: r is not used']],
  [
    { method: 'full', ...lora },
    ['method full trains every weight: r, loraAlpha, targetModules, loraDropout and bias are not used'],
  ],
  [
    { method: 'full', r: 16, bnb4bitQuantType: 'nf4' },
    ['method full trains every weight: r and bnb4bitQuantType are not used'],
  ],
  [{ loggingDir: 'logs' }, ['reportTo has no tensorboard: loggingDir is not used']],
  [{ method: 'full', webhookUrl: 'http://h' }, ['reportTo has no webhook: webhookUrl is not used']],
  [{ loggingDir: 'logs', webhookUrl: 'http://h', reportTo: ['tensorboard', 'webhook'] }, []],
  [lora, []],
  [
    { ...lora, ...fourBits },
    [
      'this run does not quantize the base to 4 bits: bnb4bitQuantType, bnb4bitUseDoubleQuant and bnb4bitBlockSize are not used',
    ],
  ],
  [{ ...lora, ...fourBits, loadIn4bit: true }, []],
  [{ ...lora, ...fourBits, method: 'qlora' }, []],
  [
    { method: 'qlora', loadIn8bit: true, bnb4bitQuantType: 'nf4' },
    ['this run quantizes the base to 8 bits: bnb4bitQuantType is not used'],
  ],
  [
    { saveDtype: 'bf16', bnb4bitQuantType: 'nf4' },
    [
      'method lora stores an adapter in f32: saveDtype is not used',
      'this run does not quantize the base to 4 bits: bnb4bitQuantType is not used',
    ],
  ],
  [{ valid: 'v', earlyStoppingPatience: 1, earlyStoppingThreshold: 0.1 }, []],
  [
    { method: 'full', earlyStoppingThreshold: 0.1 },
    ['without earlyStoppingPatience no run is stopped early: earlyStoppingThreshold is not used'],
  ],
  [{ method: 'qlora', saveDtype: 'f16' }, ['method qlora stores an adapter in f32: saveDtype is not used']],
  [
    { optim: 'sgd', adamBeta1: 0.8, adamEpsilon: 1e-6 },
    ['optim sgd has no moments: adamBeta1 and adamEpsilon are not used'],
  ],
  [{ optim: 'sgd', optimArgs: { momentum: 0.9 }, warmupSteps: 5 }, []],
  [
    { method: 'full', r: 16, loraplusLrRatio: 16, lrSchedulerType: 'constant', warmupRatio: 0.1 },
    [
      'lrSchedulerType constant has no warmup: warmupRatio is not used',
      'method full trains every weight: r and loraplusLrRatio are not used',
    ],
  ],
])('%j', (extra, expected) => {
  const config = parseTrainConfig({ ...required, ...extra })
  expect(unusedOptions(config)).toEqual(expected)
  // A complete configuration, with its defaults filled in, warns of the same.
  expect(unusedOptions(parseTrainConfig(config))).toEqual(expected)
})

test('one file serves every method', () => {
  const path = join(mkdtempSync(join(tmpdir(), 'lowrank-config-')), 'run.yaml')
  const lines = Object.entries({ ...required, ...lora, ...fourBits, save_dtype: 'bf16' })
  writeFileSync(path, lines.map(([key, value]) => `${key}: ${JSON.stringify(value)}\n`).join(''))
  const configOf = (method: string): TrainConfig => {
    const flag: Source = {
      entries: [{ name: 'method', value: method, where: '--method' }],
      spelling: 'flag',
      text: true,
    }
    return trainOptions.read([loadConfigFile(path), flag])
  }
  const methods = ['lora', 'qlora', 'full'].map(configOf)
  expect(methods.map((config) => unusedOptions(config).length)).toEqual([2, 1, 1])
  expect(methods.map((config) => quantizationOf(config))).toEqual([
    undefined,
    { kind: '4bit', quantType: 'fp4', doubleQuant: false, blockSize: 128 },
    undefined,
  ])
  for (const config of methods) expect(config).toMatchObject({ r: 16, loraAlpha: 32, saveDtype: 'bf16' })
})
