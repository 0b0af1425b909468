import { expect, test } from 'vitest'
import { evalOptions } from './options.fixture.ts'

test('the defaults of an evaluation', () => {
  expect(evalOptions.parse({ model: 'm', data: 'd' })).toEqual({
    model: 'm',
    data: 'd',
    maxLength: 1024,
    chat: false,
    trainOnInputs: false,
    lastTurnOnly: false,
    skipBadLines: false,
    loadIn4bit: false,
    loadIn8bit: false,
    perDeviceEvalBatchSize: 8,
    classify: 'likelihood',
    maxNewTokens: 128,
    baseline: false,
    sharePrefixes: 'auto',
  })
})

test('what belongs together is asked for together, in one message', () => {
  const parse = (options: object) => (): unknown => evalOptions.parse({ data: 'd', ...options })
  expect(parse({})).toThrow('model: it or adapter, which says what it was trained on, is needed')
  expect(parse({ model: 'm', baseline: true, shots: 2 })).toThrow(
    /baseline: is about the base without adapter.*shots: goes with shotsFrom; one of them is not set/s,
  )
  expect(parse({ model: 'm', metrics: ['rouge'], schema: 's.json' })).toThrow('schema: needs metrics json')
  expect(parse({ adapter: 'a', metrics: ['rouge', 'meteor'] })).toThrow(
    /metrics\[1\]: found "meteor", expected a list, each one of/,
  )
})
