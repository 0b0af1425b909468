import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { loadConfigFile, parseTrainConfig, trainOptions, type Source } from './index.ts'
import { evalOptions, quantizeOptions } from '../commands/options.fixture.ts'
import { LowrankError } from '../util/errors.ts'
import { ALIASES, HINTS, MEANT } from './foreign.ts'

const required = { model: 'm', train: 't.jsonl', outputDir: 'out' }
const folder = mkdtempSync(join(tmpdir(), 'lowrank-config-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function messageOf(action: () => unknown): string {
  try {
    action()
  } catch (error) {
    if (error instanceof LowrankError && error.code === 'config') return error.message
    throw error
  }
  throw new Error('nothing was thrown')
}

function yaml(text: string): Source {
  const path = join(folder, 'run.yaml')
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

/** Each level has the one before ten times. */
function laughs(levels: number): string {
  const list = (inner: string): string => `[${Array.from({ length: 10 }, () => inner).join(', ')}]`
  return Array.from({ length: levels }, (_, i) => `a${i}: &a${i} ${list(i === 0 ? 'x' : `*a${i - 1}`)}\n`).join('')
}

test('camelCase, snake_case and the names of other tools', () => {
  const source = yaml(
    'model_name_or_path: m\ntrain: t\noutput_dir: out\nlora_alpha: 16\nlearningRate: 2e-4\neval_steps: null\n' +
      'target_modules: [q_proj, k_proj]\nsave_strategy: no\nrank_pattern: { q_proj: 4 }\n',
  )
  expect(trainOptions.read([source])).toMatchObject({
    model: 'm',
    outputDir: 'out',
    loraAlpha: 16,
    learningRate: 2e-4,
    targetModules: ['q_proj', 'k_proj'],
    saveStrategy: 'no',
    rankPattern: { q_proj: 4 },
  })
})

test('problems name file and line', () => {
  const source = yaml('model: m\ntrain: t\noutputDir: o\n\nr: eight\nlora_alpha: 1\nloraAlpha: 2\n')
  const message = messageOf(() => trainOptions.read([source]))
  expect(message).toMatch(/run\.yaml:5: r: found "eight", expected a whole number/)
  expect(message).toMatch(/run\.yaml:7: loraAlpha: given twice; already at .*run\.yaml:6: lora_alpha/)
})

test.each([
  ['r: 1\nr: 2\n', /run\.yaml:2: Map keys must be unique/],
  ['model: [a\n', /run\.yaml:\d: /],
  ['- a\n', /expected lines of "option: value"/],
  ['a: 1\n---\nb: 2\n', /run\.yaml:\d: .*multiple documents/],
  ['r: *nowhere\n', /run\.yaml:1: /],
  ['r: &x [*x]\n', /run\.yaml:1: r: found \[\[\[\[\.\.\.\]\]\]\], expected/],
  ['r: &x { k: *x }\n', /run\.yaml:1: r: found \{"k":/],
  ['? &x [*x]\n: 1\n', /run\.yaml:1: /],
  [laughs(9), /run\.yaml:\d+: Excessive alias count/],
  ['r: !!js/function "x"\n', /run\.yaml:1: Unresolved tag/],
  ['r: !!binary aGk=\n', /run\.yaml:1: /],
  ['<<: { r: 4 }\n', /run\.yaml:1: <<: unknown option. Merge keys/],
  ['null: 1\n', /run\.yaml:1: null: unknown option/],
  ['7: 1\n', /run\.yaml:1: 7: unknown option/],
  ['r: .nan\n', /run\.yaml:1: r: found NaN/],
  ['r: 0x10g\n', /run\.yaml:1: r: found "0x10g"/],
  ['packing: yes\n', /run\.yaml:1: packing: found "yes", expected true or false/],
])('%j is refused', (text, expected) => {
  expect(messageOf(() => trainOptions.read([yaml(text)]))).toMatch(expected)
})

test('nesting without end is refused, in lists and in lines', () => {
  const lines = Array.from({ length: 3000 }, (_, level) => `${' '.repeat(level)}a:`).join('\n')
  for (const text of [`r: ${'['.repeat(20000)}${']'.repeat(20000)}\n`, lines]) {
    const message = messageOf(() => trainOptions.read([yaml(text)]))
    expect(message).toContain('run.yaml')
    expect(message.length).toBeLessThan(300)
  }
})

test('~ is the home folder in a path, and nowhere else', () => {
  const text = 'model: ~/m\ntrain: "~"\nvalid: a/~/v\noutput_dir: ~other/o\nresume_from: ./~\nexclude_modules: ~/x\n'
  const file = trainOptions.read([yaml(text)])
  expect(file).toMatchObject({
    model: join(homedir(), 'm'),
    train: homedir(),
    valid: 'a/~/v',
    outputDir: '~other/o',
    resumeFrom: './~',
    excludeModules: '~/x',
  })
  // A shell has done it; in TypeScript a path is a path.
  expect(trainOptions.read([flags({ ...required, 'output-dir': 'o', model: '~/m' })]).model).toBe('~/m')
  expect(parseTrainConfig({ ...required, model: '~/m' }).model).toBe('~/m')
})

test('options of other trainers, with what is meant here', () => {
  const message = messageOf(() =>
    trainOptions.read([
      yaml(
        'base_model: x\ndatasets:\n  - path: data.jsonl\nadapter: qlora\nlora_r: 4\nmicro_batch_size: 2\nval_set_size: 0.1\n' +
          'sequence_len: 512\ntrain_on_inputs: false\nlora_target_linear: true\nsample_packing: true\nfinetuning_type: lora\n' +
          'cutoff_len: 512\ntemplate: llama3\ntrain: t\noutput_dir: o\nlora_target: all\n',
      ),
    ]),
  )
  expect(message.split('\n').map((line) => line.replace(/^.*run\.yaml:/, ''))).toEqual([
    'configuration: 10 problems:',
    '2: datasets: unknown option. Use "train": the path of a data file, as in docs/data.md.',
    '4: adapter: found "qlora", expected the folder of an adapter to continue with. Use "method": qlora.',
    '6: micro_batch_size: unknown option. Did you mean "per_device_train_batch_size"?',
    '7: val_set_size: unknown option. Put the examples to evaluate on into a file of their own, and name it in "valid".',
    '8: sequence_len: unknown option. Did you mean "max_length"?',
    '10: lora_target_linear: unknown option. Use "target_modules": all-linear.',
    '11: sample_packing: unknown option. Did you mean "packing"?',
    '12: finetuning_type: unknown option. Use "method": lora, qlora or full.',
    '13: cutoff_len: unknown option. Did you mean "max_length"?',
    '14: template: unknown option. Use "chat_template": the model\'s own is applied where it is left out.',
  ])
  expect(trainOptions.read([yaml('adapter: ./lora\nmodel: m\ntrain: t\noutput_dir: o\n')]).adapter).toBe('./lora')
})

test('what is suggested for a name of another trainer is an option', () => {
  const keys = new Set([trainOptions, evalOptions, quantizeOptions].flatMap(({ schema }) => Object.keys(schema.shape)))
  expect([...Object.values(ALIASES), ...Object.values(MEANT)].filter((key) => !keys.has(key))).toEqual([])
  const named = Object.values(HINTS).flatMap((hint) => [...hint.matchAll(/"([a-z_0-9]+)"/g)].map((match) => match[1]!))
  const snakes = new Set([trainOptions, evalOptions].flatMap((options) => options.list().map(({ snake }) => snake)))
  expect(named.filter((name) => !snakes.has(name) && name !== 'prompt' && name !== 'completion')).toEqual([])
})

test('a file that is missing or is not text', () => {
  expect(messageOf(() => loadConfigFile('/nonexistent.yaml'))).toContain('/nonexistent.yaml: no such file')
  const path = join(mkdtempSync(join(tmpdir(), 'lowrank-config-')), 'x.yaml')
  writeFileSync(path, new Uint8Array([0x61, 0xff, 0xfe]))
  expect(messageOf(() => loadConfigFile(path))).toContain('not UTF-8')
})
