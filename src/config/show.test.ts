import { expect, test } from 'vitest'
import { parseTrainConfig } from './index.ts'
import { LowrankError } from '../util/errors.ts'

const required = { model: 'm', train: 't.jsonl', outputDir: 'out' }

function messageOf(action: () => unknown): string {
  try {
    action()
  } catch (error) {
    if (error instanceof LowrankError && error.code === 'config') return error.message
    throw error
  }
  throw new Error('nothing was thrown')
}

const problems = (input: unknown): string => messageOf(() => parseTrainConfig(input))

function raise(): never {
  throw new Error('raised')
}

class Settings {
  readonly r = 4
}
const circular: Record<string, unknown> = {}
circular['self'] = circular
const deep = JSON.parse(`${'['.repeat(5000)}${']'.repeat(5000)}`) as unknown

test.each([
  [10n, '10n'],
  [() => 1, 'a function'],
  [Symbol('x'), 'Symbol(x)'],
  [new Date(0), 'a Date'],
  [new Map(), 'a Map'],
  [new Settings(), 'a Settings'],
  [new Uint8Array(3), 'a Uint8Array'],
  [circular, '{"self":{"self":{"self":{...}}}}'],
  [[[[[1]]]], '[[[[...]]]]'],
  [deep, '[[[[...]]]]'],
  [NaN, 'NaN'],
  [-Infinity, '-Infinity'],
  [{ toJSON: (): never => raise() }, '{"toJSON":a function}'],
  [Object.create(null), '{}'],
  [Array.from({ length: 100 }, () => 1n), '[1n,1n,1n,1n,1n,1n,1n,1n,1n,1n,...]'],
])('a value that is no option of any kind is shown, not thrown at: %#', (value, text) => {
  for (const option of ['r', 'model', 'targetModules', 'rankPattern', 'memory', 'packing', 'lrSchedulerKwargs']) {
    const taken = option === 'rankPattern' || option === 'lrSchedulerKwargs' ? { key: value } : value
    const message = problems({ ...required, [option]: taken })
    expect(message).toMatch(/^configuration: /)
    if (option === 'r') expect(message).toContain(`found ${text}, expected`)
  }
})

test.each([
  [new Map([['model', 'm']])],
  [new Date()],
  [Promise.resolve({})],
  [null],
  [undefined],
  [7n],
  [circular['nothing']],
])('what has no options is refused as a whole: %#', (value) => {
  expect(problems(value)).toMatch(/^configuration: found .*, expected an object of options$/)
})

test('names of an object that are none of its own', () => {
  const forged = JSON.parse('{"__proto__":{"r":4},"model":"m","train":"t","outputDir":"o"}') as unknown
  expect(problems(forged)).toContain('__proto__: unknown option')
  expect(problems({ ...required, model: 'a\0b' })).toContain('model: found "a\\u0000b"')
})
