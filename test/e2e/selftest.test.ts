import { cpSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { selftest, type CheckResult, type SelftestResult } from 'lowrank'
import { beforeAll, describe, expect, test } from 'vitest'
import { collect, lowrank, makeTinyModel, quickstart, root, startNode, temporaryFolder, writeData } from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder)
let tiny: string
beforeAll(async () => {
  // Weights so large that what passes by the activations is more than a rounding of what passes beside them.
  tiny = await makeTinyModel(folder, { initializer_range: 0.2 })
})

const named = (checks: readonly CheckResult[], result: CheckResult['result']): string[] =>
  checks.filter((check) => check.result === result).map(({ name }) => name)

test('passes on the quickstart model, told as a table', async () => {
  const { code, stdout, stderr } = await lowrank(['selftest', '--model', quickstart, '--threads', '1'])
  expect(code, stdout + stderr).toBe(0)
  const rows = stdout.split('\n')
  expect(rows[0]).toMatch(/^check +result +found +allowed +what +time$/)
  expect(rows.filter((row) => / passed /.test(row))).toHaveLength(18)
  expect(stdout).toMatch(/^18 passed, 0 failed, 0 skipped in .+$/m)
  for (const what of ['accumulation', 'packing', 'stopped and resumed', 'the same step twice', 'saved and opened'])
    expect(stdout).toMatch(new RegExp(`^${what}.* passed `, 'm'))
  // Each check is told before it runs.
  expect(stderr.split('\n').filter((line) => /^\d+\/18 /.test(line))).toHaveLength(18)
})

test('passes on a model with biases, with an adapter of other dropout and biases, and with data of the user, as JSON', async () => {
  const adapter = join(folder, 'adapter')
  const shape = { r: 3, targetModules: ['q_proj', 'down_proj'], bias: 'all' as const, loraDropout: 0.2 }
  await collect({ model: tiny, train: data.train, outputDir: adapter, ...shape, maxSteps: 2, maxLength: 96 })
  const args = ['--model', tiny, '--adapter', adapter, '--data', data.train, '--threads', '1', '--json']
  const { code, stdout } = await lowrank(['selftest', ...args])
  const { passed, checks } = JSON.parse(stdout) as SelftestResult
  expect(named(checks, 'failed')).toEqual([])
  expect(named(checks, 'passed')).toHaveLength(18)
  expect({ passed, code }).toEqual({ passed: true, code: 0 })
})

describe('on a quantized base', () => {
  test.each([{ loadIn4bit: true, bnb4bitQuantType: 'nf4' }, { loadIn8bit: true }] as const)('%o', async (options) => {
    const told: string[] = []
    const { passed, checks } = await selftest({ model: tiny, ...options }, { onStatus: (text) => told.push(text) })
    expect(named(checks, 'failed')).toEqual([])
    expect(passed).toBe(true)
    // Weights of a quantized base have no gradients to check.
    expect(named(checks, 'skipped')).toHaveLength(6)
    expect(checks.find(({ result }) => result === 'skipped')?.why).toContain('quantized')
    // Besides how the base is held.
    expect(told.filter((message) => /^\d+\//.test(message))).toHaveLength(checks.length)
  })
})

/** Mistakes that could be made; each is found by checks of its own. */
const mistakes = {
  activation: {
    wrong: 'the gradient of SiLU by one percent',
    right: 'return [b.mul(dy, slope),',
    instead: 'return [b.scale(b.mul(dy, slope), 1.01),',
    // The part of the gradient that passes by it is right still.
    failed: [/^gradient of LoRA A, along/, /^gradient of linear layers, along/, /^gradient of norms and biases, along/],
  },
  packing: {
    wrong: 'attention between packed examples',
    right: 'beginning(paths.at(-1) ?? [], position)',
    instead: '(paths.at(-1) ?? [])',
    failed: [/^packing$/],
  },
  masks: {
    wrong: 'dropout masks from the random numbers of the machine',
    right: 'const scale = 1 / Math.log1p(-rare)',
    instead: 'const scale = (1 + 1e-3 * Math.random()) / Math.log1p(-rare)',
    failed: [/^the same step twice$/, /^stopped and resumed$/],
  },
  optimizer: {
    wrong: 'an optimizer that forgets its steps when a run goes on',
    right: 'optimizer.steps = record.optimizerSteps',
    instead: '',
    failed: [/^stopped and resumed$/],
  },
  accumulation: {
    wrong: 'gradients divided by the number of micro-batches',
    right: 'realTokens += batch.realTokens',
    instead:
      'realTokens += batch.realTokens; if (batch === batches.at(-1)) ' +
      'for (const { gradient } of trainables.values()) gradient.forEach((g, i) => (gradient[i] = g / batches.length))',
    failed: [/^accumulation/],
  },
}

describe('a build that is wrong is found out', () => {
  const builds = [
    {
      wrong: ['activation', 'packing', 'optimizer', 'accumulation'],
      passed: ['saved and opened again', 'the same step twice'],
    },
    { wrong: ['masks'], passed: ['saved and opened again', 'packing'] },
  ] as const
  test.each(builds)('in $wrong', async ({ wrong, passed }) => {
    const build = join(folder, `build-${wrong.join('-')}`)
    cpSync(join(root, 'dist'), join(build, 'dist'), { recursive: true })
    cpSync(join(root, 'package.json'), join(build, 'package.json'))
    symlinkSync(join(root, 'node_modules'), join(build, 'node_modules'))
    for (const { right, instead } of wrong.map((name) => mistakes[name])) {
      const files = readdirSync(join(build, 'dist')).filter((name) => name.endsWith('.js'))
      const texts = files.map((name) => readFileSync(join(build, 'dist', name), 'utf8'))
      expect(texts.join('').split(right), right).toHaveLength(2)
      const place = texts.findIndex((text) => text.includes(right))
      writeFileSync(join(build, 'dist', files[place]!), texts[place]!.replace(right, instead))
    }
    const { code, stdout, stderr } = await startNode([
      join(build, 'dist/cli.js'),
      'selftest',
      '--model',
      tiny,
      '--threads',
      '1',
    ]).ended
    expect(code, stderr).toBe(1)
    const names = stdout.split('\n').flatMap((row) => /^(.*?) +failed /.exec(row)?.[1] ?? [])
    expect(stderr).toContain(`error: ${names.length} of 18 checks failed: ${names.join('; ')}\nhint: `)
    for (const { failed, wrong: mistake } of wrong.map((name) => mistakes[name])) {
      for (const name of failed) expect(names, mistake).toContainEqual(expect.stringMatching(name))
    }
    // What does not depend on it passes.
    for (const name of passed) expect(stdout).toMatch(new RegExp(`^${name} +passed `, 'm'))
  })
})

test('a model that is none is refused', async () => {
  const { code, stderr } = await lowrank(['selftest', '--model', folder])
  expect(code).toBe(2)
  expect(stderr).toContain('tokenizer.json')
})
