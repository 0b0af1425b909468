import { expect, test } from 'vitest'
import { lowrank } from './harness.fixture.ts'

test('a check that failed is an error after the table: exit code 1', async () => {
  const { code, stdout, stderr } = await lowrank(['selftest', '--model', 'm'])
  expect(stdout).toBe(
    [
      'check    result  found  allowed  what                  time',
      'check 0  passed      0        0  numbers that differ  1.5 s',
      'check 3  failed      3        0  numbers that differ  1.5 s',
      '',
      '1 passed, 1 failed, 0 skipped in 3.0 s',
      '',
    ].join('\n'),
  )
  expect(stderr).toMatch(/^error: 1 of 2 checks failed: check 3\nhint: .*report it/)
  expect(code).toBe(1)
})

test('--json has the same, and the same exit code', async () => {
  const { code, stdout } = await lowrank(['selftest', '--model', 'm', '--json'])
  expect(JSON.parse(stdout)).toMatchObject({ passed: false, checks: [{ result: 'passed' }, { result: 'failed' }] })
  expect(code).toBe(1)
})

test('options that make no sense are refused', async () => {
  const { code, stderr } = await lowrank(['selftest', '--model', 'm', '--bnb-4bit-block-size', '64'])
  expect(stderr).toContain('--bnb-4bit-block-size: describes a base in 4 bits')
  expect(code).toBe(2)
  expect((await lowrank(['replay', '--step', '3'])).stderr).toContain('RUN is missing')
  expect((await lowrank(['replay', 'out', '--step', '0'])).stderr).toContain('--step: found 0')
})
