import {
  compareRuns,
  evaluate,
  finetune,
  listRuns,
  loadModel,
  LowrankError,
  quantize,
  replay,
  selftest,
  writeReport,
  type Model,
} from 'lowrank'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { makeTinyModel, temporaryFolder } from './support.ts'

/** Calls as JavaScript makes them, where no compiler looks at the arguments. */
type Loose = (...args: unknown[]) => unknown

const api = { compareRuns, evaluate, listRuns, loadModel, quantize, replay, selftest, writeReport }

async function refusal(call: () => unknown): Promise<LowrankError> {
  const error: unknown = await Promise.resolve()
    .then(call)
    .then(
      () => new Error('nothing was thrown'),
      (thrown: unknown) => thrown,
    )
  if (!(error instanceof LowrankError)) throw error
  return error
}

const train = { model: 'm', train: 't', outputDir: 'o' }
const first = (...args: unknown[]): unknown => (finetune as Loose as typeof finetune)(...(args as [never])).next()
const signals = [
  [new AbortController(), 'signal: found an AbortController, expected an AbortSignal'],
  [{}, 'signal: found {}, expected an AbortSignal'],
  [true, 'signal: found true, expected an AbortSignal'],
  [() => 1, 'signal: found a function, expected an AbortSignal'],
] as const

describe('what a call is given beside options', () => {
  const calls: readonly (readonly [string, (options: unknown) => unknown])[] = [
    ['finetune', (options) => first(train, options)],
    ['evaluate', (options) => (evaluate as Loose)({ model: 'm', data: 'd' }, options)],
    ['quantize', (options) => (quantize as Loose)({ model: 'm', output: 'q' }, options)],
    ['selftest', (options) => (selftest as Loose)({ model: 'm' }, options)],
    ['loadModel', (options) => (loadModel as Loose)({ model: 'm' }, options)],
    ['replay', (options) => (replay as Loose)('run', { step: 1 }, options)],
  ]
  test.each(calls)('%s', async (_, call) => {
    for (const [signal, message] of signals) {
      expect(await refusal(() => call({ signal }))).toMatchObject({
        code: 'config',
        message: `configuration: ${message}`,
      })
    }
    const { signal } = new AbortController()
    expect((await refusal(() => call({ signals: signal }))).message).toBe(
      'configuration: signals: unknown call option. Did you mean "signal"?',
    )
    expect((await refusal(() => call(signal))).code).toBe('config')
    expect((await refusal(() => call(7))).message).toContain('call options: found 7, expected an object with signal')
    expect((await refusal(() => call(null))).message).toContain('call options: found null')
  })
})

const circular: Record<string, unknown> = {}
circular['self'] = circular

test.each([
  ['loadModel', [{ model: 'm', adaptor: 'x' }], 'adaptor: unknown option. Did you mean "adapter"?'],
  ['loadModel', [{ model: 'm', threads: -1 }], 'threads: found -1, expected a whole number from 1 up to 1024'],
  ['loadModel', [{ model: 'm', threads: 1.5 }], 'threads: found 1.5'],
  ['loadModel', [{ model: 'm', threads: 2n }], 'threads: found 2n'],
  ['loadModel', [{ model: circular }], 'model: found {"self":'],
  ['loadModel', [{ model: () => 'm' }], 'model: found a function'],
  ['loadModel', [{ model: new URL('file:///m') }], 'model: found a URL'],
  ['loadModel', [{ model: 'a\0b' }], 'model: found "a\\u0000b"'],
  ['loadModel', [{}], 'model: missing'],
  ['loadModel', ['m'], 'found "m", expected an object of options'],
  ['loadModel', [], 'found undefined, expected an object of options'],
  ['evaluate', [{ model: 'm', data: 'd', threads: 2n }], 'threads: found 2n'],
  ['evaluate', [new Map([['model', 'm']])], 'found a Map, expected an object of options'],
  ['quantize', [{ model: 'm', output: 'q', maxShardSize: circular }], 'maxShardSize: found {"self":'],
  ['selftest', [{ model: 'm', data: Symbol('d') }], 'data: found Symbol(d)'],
  ['replay', [7, { step: 1 }], 'run: found 7, expected a non-empty string'],
  ['replay', ['run', { step: 1n }], 'step: found 1n'],
  ['listRuns', [7], 'folder: found 7, expected a non-empty string'],
  ['listRuns', ['.', { depth: -1 }], 'depth: found -1'],
  ['listRuns', ['.', { dept: 1 }], 'dept: unknown option. Did you mean "depth"?'],
  ['writeReport', [undefined], 'folder: found undefined'],
  ['writeReport', ['r', { output: 7 }], 'output: found 7'],
  ['compareRuns', [['a', null]], 'folders[1]: found null'],
  ['compareRuns', [['a', 'b'], { outptu: 'x' }], 'outptu: unknown option. Did you mean "output"?'],
] as const)('%s %#', async (name, args, message) => {
  const error = await refusal(() => (api[name] as Loose)(...args))
  expect({ code: error.code, message: error.message }).toEqual({
    code: 'config',
    message: expect.stringContaining(message),
  })
})

test('finetune with values that no thread could be sent', async () => {
  for (const value of [1n, circular, () => 1, Symbol('r'), new Date(), new WeakMap()]) {
    expect((await refusal(() => first({ ...train, r: value }))).code).toBe('config')
  }
})

describe('generate', () => {
  const folder = temporaryFolder()
  let model: Model
  beforeAll(async () => {
    model = await loadModel({ model: await makeTinyModel(folder), threads: 1, adapter: undefined })
  })
  afterAll(() => model.close())
  const generate = (...args: unknown[]): unknown => (model.generate.bind(model) as Loose)(...args)

  test.each([
    [[7], 'prompt: found 7, expected a string'],
    [[undefined], 'prompt: found undefined'],
    [[['a', 7]], 'prompts[1]: found 7, expected a string'],
    [[{ messages: [] }], 'prompt: "messages" has nothing to answer'],
    [[{ messages: [{ role: 'user' }] }], 'prompt: message 1: "content" is missing'],
    [[{ messages: [{ role: 'user', content: 'a' }] }], 'has no chat template'],
    [['a\ud83d'], 'prompt: no valid Unicode: half a surrogate pair, \\ud83d, at character 2'],
    [['a', { maxNewTokens: 1.5 }], 'maxNewTokens: found 1.5, expected a whole number from 1'],
    [['a', { maxNewTokens: -1 }], 'maxNewTokens: found -1'],
    [['a', { maxNewTokens: 0 }], 'maxNewTokens: found 0'],
    [['a', { maxNewTokens: NaN }], 'maxNewTokens: found NaN'],
    [['a', { maxNewTokens: Infinity }], 'maxNewTokens: found Infinity'],
    [['a', { maxNewTokens: '3' }], 'maxNewTokens: found "3"'],
    [['a', { maxTokens: 3 }], 'maxTokens: unknown option. Did you mean "maxNewTokens"?'],
    [['a', { temperature: -1 }], 'temperature: found -1'],
    [['a', { topP: 0 }], 'topP: found 0'],
    [['a', { logitBias: { b: 1 } }], 'logitBias'],
    [['a', { adapter: 'tickets' }], 'adapter: "tickets" is not loaded (none is)'],
    [[['a', 'b'], { adapter: [null] }], 'adapter: a list of 1 for 2 prompts'],
    [['a', 3], 'found 3, expected an object of options'],
    [['a', null], 'found null, expected an object of options'],
  ])('refuses %#', async (args, message) => {
    const error = await refusal(() => generate(...args))
    expect({ code: error.code, message: error.message }).toEqual({
      code: 'config',
      message: expect.stringContaining(message),
    })
  })

  test('several prompts, and none', async () => {
    expect(await generate(['a', 'b'], { maxNewTokens: 2 })).toHaveLength(2)
    expect(await generate([])).toEqual([])
  })

  test('an empty prompt, and names as in Python', async () => {
    expect(typeof (await generate('', { max_new_tokens: 2 }))).toBe('string')
  })

  test('once closing has begun, no call is taken, and those before are answered', async () => {
    const other = await loadModel({ model: `${folder}/tiny`, threads: 1 })
    const before = other.generate('a', { maxNewTokens: 2 })
    const closed = other.close()
    expect(await refusal(() => other.generate('a'))).toMatchObject({ code: 'usage', message: 'this model is closed' })
    expect(typeof (await before)).toBe('string')
    await closed
    await other.close()
    expect((await refusal(() => other.generate('a'))).code).toBe('usage')
  })
})
