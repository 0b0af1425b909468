import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { afterAll, expect, test } from 'vitest'
import { makeRun } from '../report/run.fixture.ts'
import { LowrankError } from '../util/errors.ts'
import type { TrainEvent } from '../train/events.ts'
import { lowrank, trainFlags } from './harness.fixture.ts'
import { safe } from '../terminal/output.ts'
import { openProgress } from '../terminal/progress.ts'
import { recordedRun } from '../terminal/recorded.fixture.ts'

const folder = mkdtempSync(join(tmpdir(), 'lowrank-hostile-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Sets the title, clears the screen, goes back over the line, turns the order of letters. */
const evil = 'a\u001b]0;t\u0007\u001b[2J\rb\u0008\u009b31m\u202ecod\u2066\u2028\u200b\ufeff\u007f'
const control = /[\0-\x09\x0b-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2066-\u2069\ufeff]/

/** An event with `evil` behind each of its texts, but for the words of its type. */
function poisoned<T>(value: T): T {
  return JSON.parse(JSON.stringify(value), (key, inner: unknown) =>
    typeof inner === 'string' && !['type', 'kind', 'action', 'when', 'activations'].includes(key)
      ? inner + evil
      : inner,
  ) as T
}

async function* hostileRun(): AsyncGenerator<TrainEvent> {
  for (const event of recordedRun) yield await Promise.resolve(poisoned(event))
  yield { type: 'warning', message: evil }
}

test('no text of an event reaches the terminal as a control sequence', async () => {
  const { stdout, stderr } = await lowrank(['train', ...trainFlags, '--valid', `v${evil}`], { finetune: hostileRun })
  expect(stdout).not.toMatch(control)
  expect(stderr).not.toMatch(control)
  expect(stderr).toContain('warning: a\\u001b]0;t\\u0007\\u001b[2J\\u000db\\u0008\\u009b31m\\u202ecod')
  expect(stdout).toContain('\\u001b')
})

test('JSON stays JSON, with the same values', async () => {
  const { stdout } = await lowrank(['train', ...trainFlags, '--json'], { finetune: hostileRun })
  expect(stdout).not.toMatch(control)
  const events = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as TrainEvent)
  expect(events.at(-1)).toEqual({ type: 'warning', message: evil })
  expect(events.slice(0, -1)).toEqual(
    recordedRun.map((event) => JSON.parse(JSON.stringify(poisoned(event))) as unknown),
  )
})

test.each([
  ['an error and its hint', new LowrankError('model', `m: ${evil}`, { hint: evil })],
  ['a bug, with its stack', new Error(evil, { cause: new Error(evil) })],
  ['an error of the system', Object.assign(new Error(evil), { syscall: 'open' })],
])('%s', async (_, error) => {
  const { stderr } = await lowrank(['train', ...trainFlags], {
    finetune: async function* () {
      yield await Promise.resolve({ type: 'status', message: 'reading' })
      throw error
    },
  })
  expect(stderr).toContain('\\u001b]0;t')
  expect(stderr).not.toMatch(control)
})

test.each([
  [[evil]],
  [['train', `--${evil}`, '1']],
  [['train', '--model', 'm', evil]],
  [['eval', '--model', 'm', '--data', 'd', '--threads', evil]],
  [['replay', evil, '--step', evil]],
])('the command line itself: %j', async (args) => {
  const { code, stderr } = await lowrank(args)
  expect(code).not.toBe(0)
  expect(stderr).toContain('\\u001b')
  expect(stderr).not.toMatch(control)
})

test('names of folders, and what their files say, in lists and comparisons', async () => {
  const names = [`a${evil}`, `b\n${evil}`].map((name) => join(folder, name.replaceAll('/', '')))
  for (const [index, name] of names.entries()) {
    makeRun(name, { steps: 3, config: { model: `m${index}${evil}\nx`, [`option${evil}`]: index } })
  }
  const list = await lowrank(['runs', folder])
  // A title and a row a run.
  expect(list.stdout.trimEnd().split('\n')).toHaveLength(3)
  const output = join(folder, 'compared.html')
  const compared = await lowrank(['runs', 'compare', ...names, '--output', output])
  for (const { code, stdout, stderr } of [list, compared]) {
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toContain('\\u001b')
    expect(stdout).not.toMatch(control)
  }
})

test('above a bar, the sequences are those of the bar alone', () => {
  const draw = (message: string): string => {
    const stream = Object.assign(new PassThrough(), { isTTY: true, columns: 100 })
    const progress = openProgress(safe(stream))
    for (const event of recordedRun) progress.event(event)
    progress.event({ type: 'warning', message })
    progress.close()
    return String(stream.read())
  }
  expect(draw(evil)).toContain('\\u001b]0;t')
  expect(draw(evil)).not.toMatch(/\x07|\x1b\]|\u009b|\u202e/)
})
