import { mkdtempSync, readdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import {
  closest,
  jsonSchema,
  loadConfigFile,
  parseTrainConfig,
  quantizationOf,
  trainOptions,
  trainSchema,
  unusedOptions,
  type Source,
  type TrainConfig,
} from './index.ts'
import { evalOptions, mergeOptions, quantizeOptions } from '../commands/options.fixture.ts'
import { LowrankError } from '../util/errors.ts'

const required = { model: 'm', train: 't.jsonl', outputDir: 'out' }

function messageOf(action: () => unknown): string {
  try {
    action()
  } catch (error) {
    expect(error).toBeInstanceOf(LowrankError)
    expect((error as LowrankError).code).toBe('config')
    return (error as LowrankError).message
  }
  throw new Error('nothing was thrown')
}

const problems = (input: unknown): string => messageOf(() => parseTrainConfig(input))

function yaml(text: string): Source {
  const path = join(mkdtempSync(join(tmpdir(), 'lowrank-config-')), 'run.yaml')
  writeFileSync(path, text)
  return loadConfigFile(path)
}

function flags(entries: Record<string, unknown>): Source {
  return {
    entries: Object.entries(entries).map(([name, value]) => ({ name, value, where: `--${name}` })),
    spelling: 'flag',
    text: true,
  }
}

describe('defaults', () => {
  test('are those of PEFT and transformers', () => {
    expect(parseTrainConfig(required)).toEqual({
      ...required,
      maxLength: 1024,
      chat: false,
      trainOnInputs: false,
      lastTurnOnly: false,
      skipBadLines: false,
      r: 8,
      loraAlpha: 8,
      targetModules: ['q_proj', 'v_proj'],
      loraDropout: 0,
      bias: 'none',
      useRslora: false,
      loadIn4bit: false,
      loadIn8bit: false,
      method: 'lora',
      init: 'pretrained',
      perDeviceTrainBatchSize: 8,
      gradientAccumulationSteps: 1,
      numTrainEpochs: 3,
      maxSteps: -1,
      learningRate: 5e-5,
      lrSchedulerType: 'linear',
      warmupSteps: 0,
      warmupRatio: 0,
      optim: 'adamw',
      weightDecay: 0,
      adamBeta1: 0.9,
      adamBeta2: 0.999,
      adamEpsilon: 1e-8,
      maxGradNorm: 1,
      labelSmoothingFactor: 0,
      packing: false,
      sharePrefixes: 'auto',
      groupByLength: false,
      reportTo: [],
      seed: 42,
      loggingSteps: 500,
      evalStrategy: 'no',
      evalOnStart: false,
      perDeviceEvalBatchSize: 8,
      saveStrategy: 'steps',
      saveSteps: 500,
      saveDtype: 'auto',
      maxShardSize: 50e9,
      overwriteOutputDir: false,
      loadBestModelAtEnd: false,
      resume: false,
      resumeAnyway: false,
      samples: 0,
      onSpike: 'warn',
      earlyStoppingThreshold: 0,
      classify: 'likelihood',
      maxNewTokens: 128,
      activations: 'auto',
      matmulPrecision: 'auto',
    })
  })

  test('the evaluation strategy follows from what is given', () => {
    expect(parseTrainConfig({ ...required, valid: 'v' }).evalStrategy).toBe('epoch')
    expect(parseTrainConfig({ ...required, valid: 'v', evalSteps: 7 })).toMatchObject({
      evalStrategy: 'steps',
      evalSteps: 7,
    })
    expect(parseTrainConfig({ ...required, valid: 'v', evalStrategy: 'steps', loggingSteps: 5 }).evalSteps).toBe(5)
  })

  test('a complete configuration parses to itself', () => {
    const all = [
      {},
      { valid: 'v', evalSteps: 3, r: 4 },
      { method: 'full', init: 'random', saveDtype: 'bf16', maxShardSize: '900MB' },
      { method: 'qlora', memory: '8GiB' },
      { method: 'qlora', loadIn8bit: true },
      { loadIn4bit: true, bnb4bitBlockSize: 128 },
      { adapter: 'a' },
      { method: 'full', r: 16, bnb4bitQuantType: 'nf4' },
      { saveDtype: 'bf16', bnb4bitBlockSize: 128 },
      { reportTo: ['tensorboard', 'webhook'], webhookUrl: 'https://example.org/a?b=c', loggingDir: 'logs' },
    ]
    for (const extra of all) {
      const config = parseTrainConfig({ ...required, ...extra })
      expect(parseTrainConfig(config)).toEqual(config)
    }
  })

  test('resume_from_checkpoint of transformers is a path, or true for the latest', () => {
    const parse = (value: unknown): TrainConfig => parseTrainConfig({ ...required, resume_from_checkpoint: value })
    expect(parse('out/checkpoint-3')).toMatchObject({ resumeFrom: 'out/checkpoint-3', resume: false })
    for (const value of [true, 'True']) {
      expect(parse(value)).toMatchObject({ resume: true })
      expect(parse(value)).not.toHaveProperty('resumeFrom')
    }
    expect(parse(false)).toMatchObject({ resume: false })
  })
})

test.each([
  ['adamw_torch', 'adamw'],
  ['adamw_torch_fused', 'adamw'],
  ['adamw_hf', 'adamw'],
  ['paged_adamw_32bit', 'adamw'],
  ['adamw', 'adamw'],
  ['adamw-8bit', 'adamw-8bit'],
  ['adamw_8bit', 'adamw-8bit'],
  ['adamw_bnb_8bit', 'adamw-8bit'],
  ['paged_adamw_8bit', 'adamw-8bit'],
])('the optimizer %s is %s', (optim, expected) => {
  expect(parseTrainConfig({ ...required, optim }).optim).toBe(expected)
  const sources = [flags({ model: 'm', train: 't', 'output-dir': 'o', optim })]
  expect(trainOptions.read(sources).optim).toBe(expected)
})

describe('sizes', () => {
  test.each([
    ['8GB', 8e9],
    ['1.5 GiB', 1.5 * 2 ** 30],
    [123456, 123456],
  ])('memory %s', (memory, bytes) => {
    expect(parseTrainConfig({ ...required, memory }).memory).toBe(bytes)
    const sources = [flags({ model: 'm', train: 't', 'output-dir': 'o', memory: String(memory) })]
    expect(trainOptions.read(sources).memory).toBe(bytes)
    expect(evalOptions.parse({ model: 'm', data: 'd', memory }).memory).toBe(bytes)
    const evaluation = [flags({ model: 'm', data: 'd', memory: String(memory) })]
    expect(evalOptions.read(evaluation).memory).toBe(bytes)
  })

  test.each(['8', 'lots', '8G', '0GB', -1, 0, 1.5, NaN, Infinity, true, '9999999TB'])('%s is refused', (memory) => {
    expect(problems({ ...required, memory })).toContain(
      'expected a size such as 8GB, 900MB or 24GiB, or a number of bytes',
    )
    expect(problems({ ...required, maxShardSize: memory })).toContain('maxShardSize: found')
  })
})

describe('problems', () => {
  test('are reported all at once, with the value found and what is accepted', () => {
    const message = problems({ model: 'm', outputDir: '', r: 0, loraDropout: 1, lernRate: 1, bias: 'some', seed: 1.5 })
    expect(message.split('\n')).toEqual([
      'configuration: 7 problems:',
      '  lernRate: unknown option. Did you mean "learningRate"?',
      '  train: missing. Training data: files, folders or patterns, a:2 for twice an epoch (docs/data.md)',
      '  outputDir: found "", expected a non-empty string',
      '  r: found 0, expected a whole number from 1 up to 65536',
      '  loraDropout: found 1, expected a number from 0 below 1',
      '  bias: found "some", expected one of none, all, lora_only',
      '  seed: found 1.5, expected a whole number from 0 up to 4294967295',
    ])
  })

  test.each([
    [{ learningRate: NaN }, 'learningRate: found NaN, expected a number above 0, up to 100'],
    [{ learningRate: Infinity }, 'learningRate: found Infinity'],
    [{ learningRate: '2e-4' }, 'learningRate: found "2e-4"'],
    [{ maxSteps: 0 }, 'maxSteps: found 0, expected -1 or a whole number from 1'],
    [{ layersToTransform: [0, -1] }, 'layersToTransform[1]: found -1'],
    [{ rankPattern: { q_proj: 0 } }, 'rankPattern.q_proj: found 0'],
    [
      { targetModules: '(q_proj' },
      'targetModules: found "(q_proj", expected a list of module names, a regular expression, or \'all-linear\'',
    ],
    [{ targetModules: [] }, 'targetModules: found []'],
    [{ lora_alfa: 3 }, 'lora_alfa: unknown option. Did you mean "lora_alpha"?'],
    [{ lr: 1 }, 'lr: unknown option. Did you mean "learningRate"?'],
    [{ num_epochs: 1 }, 'num_epochs: unknown option. Did you mean "num_train_epochs"?'],
    [{ bf16: true }, 'bf16: unknown option. Lowrank computes in f32'],
    [{ constructor: 1 }, 'constructor: unknown option.'],
    [{ lora_alpha: 3, loraAlpha: 4 }, 'loraAlpha: given twice; already at lora_alpha'],
    [{ loadBestModelAtEnd: true }, 'loadBestModelAtEnd: needs valid, which is not set'],
    [{ resume: true, resumeFrom: 'c' }, 'resume: resumes from the latest checkpoint, resumeFrom from another'],
    [{ resumeAnyway: true }, 'resumeAnyway: needs resume or resumeFrom'],
    [{ earlyStoppingPatience: 2 }, 'earlyStoppingPatience: needs valid, which is not set'],
    [{ valid: 'v', earlyStoppingPatience: 2, evalStrategy: 'no' }, 'earlyStoppingPatience: needs evaluations'],
    [{ evalSteps: 5 }, 'evalSteps: needs valid'],
    [{ evalStrategy: 'epoch' }, 'evalStrategy: needs valid'],
    [{ evalOnStart: true }, 'evalOnStart: needs valid'],
    [{ samples: 2 }, 'samples: needs valid'],
    [{ valid: 'v', loadBestModelAtEnd: true, evalStrategy: 'no' }, 'loadBestModelAtEnd: needs evaluations'],
    [{ method: 'full', adapter: 'a' }, 'adapter: has no meaning with method full'],
    [{ adapter: 'a', r: 16 }, 'r: has no meaning with adapter'],
    [{ init: 'random' }, 'init: random weights need method full'],
    [{ optim: 'adafactor' }, 'optim: found "adafactor", expected one of adamw, adamw-8bit'],
    [{ optimizer: 'adamw' }, 'optimizer: unknown option. Did you mean "optim"?'],
    [{ constructor: 1, optim: 'constructor' }, 'optim: found "constructor"'],
  ])('%j', (extra, expected) => {
    expect(problems({ ...required, ...extra })).toContain(expected)
  })

  test('something else than an object', () => {
    expect(problems([1])).toBe('configuration: found [1], expected an object of options')
    expect(problems('x')).toContain('found "x"')
  })

  test('long values are cut', () => {
    expect(problems({ ...required, bias: 'x'.repeat(1000) }).length).toBeLessThan(200)
  })
})

test('the examples that come with the package have no problem and no idle option', () => {
  const folder = fileURLToPath(new URL('../../examples', import.meta.url))
  const names = readdirSync(folder).filter((name) => name.endsWith('.yaml'))
  expect(names.sort()).toEqual(['qlora.yaml', 'quickstart.yaml'])
  const configs = names.map((name) => trainOptions.read([loadConfigFile(join(folder, name))]))
  expect(configs.map(unusedOptions)).toEqual([[], []])
  expect(configs.map(quantizationOf)).toEqual([
    { kind: '4bit', quantType: 'nf4', doubleQuant: true, blockSize: 64 },
    undefined,
  ])
  // What the file says of changing one word.
  for (const method of ['lora', 'full']) {
    const sources = [loadConfigFile(join(folder, 'qlora.yaml')), flags({ method })]
    expect(trainOptions.read(sources).method).toBe(method)
  }
})

describe('flags that are repeated', () => {
  const given = (...adapters: readonly string[]): unknown[] => {
    const entries = adapters.map((value) => ({ name: 'adapter', value, where: '--adapter' }))
    const source: Source = { entries, spelling: 'flag', text: true }
    return mergeOptions.read([flags({ model: 'm', output: 'o' }), source]).adapter as unknown[]
  }

  test('are a list, in which a comma is a comma', () => {
    expect(given('a')).toEqual(['a'])
    expect(given('a,b', 'c:0.5', 'a,b')).toEqual(['a,b', 'c:0.5', 'a,b'])
  })

  test('are one text or a list of them to the API', () => {
    const adapterOf = (adapter: unknown): unknown => mergeOptions.parse({ model: 'm', output: 'o', adapter }).adapter
    expect(adapterOf('a:2')).toEqual(['a:2'])
    expect(adapterOf(['a', 'b:2'])).toEqual(['a', 'b:2'])
    expect(messageOf(() => adapterOf([]))).toContain('adapter: found []')
    expect(messageOf(() => adapterOf(['a', 7]))).toContain('adapter')
  })
})

describe('flags', () => {
  test('win over the file, and text becomes what the option holds', () => {
    const file = yaml('model: m\ntrain: t\noutput_dir: out\nr: 4\nlora_alpha: 3\n')
    const config = trainOptions.read([
      file,
      flags({
        r: '32',
        'learning-rate': '2e-4',
        'target-modules': 'q_proj,self_attn.v_proj',
        'rank-pattern': 'q_proj=8,^model.layers.1=2',
        'layers-to-transform': '0,3',
        'max-steps': '-1',
      }),
    ])
    const given = {
      model: 'm',
      train: 't',
      outputDir: 'out',
      loraAlpha: 3,
      r: 32,
      learningRate: 2e-4,
      targetModules: ['q_proj', 'self_attn.v_proj'],
      rankPattern: { q_proj: 8, '^model.layers.1': 2 },
      layersToTransform: [0, 3],
      maxSteps: -1,
    }
    expect(config).toEqual(parseTrainConfig(given))
  })

  test.each([
    ['q_proj', ['q_proj']],
    ['all-linear', 'all-linear'],
    ['.*\\.(q|v)_proj', '.*\\.(q|v)_proj'],
    ['.*layers.{1,2}q_proj', '.*layers.{1,2}q_proj'],
  ])('--target-modules %s', (text, expected) => {
    const sources = [flags({ model: 'm', train: 't', 'output-dir': 'o', 'target-modules': text })]
    expect(trainOptions.read(sources).targetModules).toEqual(expected)
  })

  test('problems name the flag', () => {
    const message = messageOf(() => trainOptions.read([flags({ model: 'm', r: '0x10', 'alpha-pattern': 'q_proj' })]))
    expect(message).toContain('--r: found "0x10"')
    expect(message).toContain('--alpha-pattern: found "q_proj", expected names, each with a number above 0')
    expect(message).toContain('--output-dir: missing')
  })
})

test('every option has help, a group and a distinct flag', () => {
  const sets = [trainOptions, evalOptions, quantizeOptions]
  const counts = sets.map((set) => {
    const options = set.list()
    for (const option of options) {
      expect(option.help, option.key).not.toBe('')
      expect(option.group, option.key).not.toBe('Other')
    }
    expect(new Set(options.map((option) => option.flag)).size).toBe(options.length)
    return options.length
  })
  expect(counts).toEqual(sets.map(({ schema }) => Object.keys(schema.shape).length))
  expect(counts).toEqual([93, 33, 8])
})

test('the JSON Schema closes the object and carries the defaults', () => {
  const schema = jsonSchema(trainSchema)
  expect(schema).toMatchObject({
    additionalProperties: false,
    required: ['model', 'train', 'outputDir'],
    properties: {
      r: { type: 'integer', default: 8, minimum: 1 },
      maxShardSize: { anyOf: [{ type: 'integer' }, { type: 'string' }], default: '50GB' },
    },
  })
})

test('suggestions are near or absent', () => {
  const names = ['learningRate', 'loraAlpha', 'r']
  expect(closest('lernRate', names)).toBe('learningRate')
  expect(closest('loraAlhpa', names)).toBe('loraAlpha')
  for (const name of ['zebra', 'x', 'run']) expect(closest(name, names), name).toBeUndefined()
})

test('where an adapter is used, the record beside it decides how its base is held, unless something is said', () => {
  const [base, adapted] = [
    { model: 'm', data: 'd' },
    { model: 'm', data: 'd', adapter: 'a' },
  ]
  expect(evalOptions.parse(base).loadIn4bit).toBe(false)
  expect(evalOptions.parse(adapted).loadIn4bit).toBeUndefined()
  expect(evalOptions.parse({ ...adapted, loadIn4bit: false }).loadIn4bit).toBe(false)
  expect(evalOptions.parse({ ...adapted, loadIn8bit: true }).loadIn4bit).toBe(false)
  expect(evalOptions.parse({ ...adapted, method: 'lora' }).loadIn4bit).toBe(false)
  expect(quantizationOf(evalOptions.parse({ ...adapted, method: 'qlora' }))).toEqual({
    kind: '4bit',
    quantType: 'nf4',
    doubleQuant: true,
    blockSize: 64,
  })
})
