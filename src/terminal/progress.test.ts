import { PassThrough } from 'node:stream'
import { expect, test } from 'vitest'
import { columns, wrap } from './format.ts'
import { duration, formatSize } from '../util/format.ts'
import { safe } from './output.ts'
import { openProgress } from './progress.ts'
import { recordedRun } from './recorded.fixture.ts'

test('on a terminal: a bar, and the log lines above it', () => {
  const stream = Object.assign(new PassThrough(), { isTTY: true, columns: 100 })
  const exitListeners = process.listenerCount('exit')
  const progress = openProgress(safe(stream))
  for (const event of recordedRun) progress.event(event)
  progress.line('last words')
  progress.close()
  progress.close()
  const drawn = String(stream.read())
  expect(drawn).toContain('\u2588 3/3  loss 1.5000  812 tokens/s  1.20 GB  0.0 s left')
  expect(drawn).toContain('step 2  eval loss 1.9000')
  // Lines that wait for the next redraw are not lost at the end.
  expect(drawn).toContain('last words\n')
  // Cursor and line wrapping are given back.
  expect(drawn.lastIndexOf('\u{1b}[?25h')).toBeGreaterThan(drawn.lastIndexOf('\u{1b}[?25l'))
  expect(drawn.lastIndexOf('\u{1b}[?7h')).toBeGreaterThan(drawn.lastIndexOf('\u{1b}[?7l'))
  expect(process.listenerCount('exit')).toBe(exitListeners)
})

test('numbers', () => {
  expect([0.04, 9.96, 59.4, 61, 3599.6, 7500, Infinity].map(duration)).toEqual([
    '0.0 s',
    '10.0 s',
    '59 s',
    '1m 01s',
    '1h 00m',
    '2h 05m',
    '?',
  ])
  expect([5e6, 999e6, 1.234e9].map(formatSize)).toEqual(['5 MB', '999 MB', '1.23 GB'])
})

test('text breaks at spaces, and words longer than a line break anywhere', () => {
  expect(wrap('one two three', 8)).toEqual(['one two', 'three'])
  expect(wrap('abcdefghij', 4)).toEqual(['abcd', 'efgh', 'ij'])
  expect(wrap('a\n\nb', 4)).toEqual(['a', '', 'b'])
})

test('columns have the same number of lines', () => {
  expect(columns(['a', 'b'], ['one two three four', 'x'], 23)).toEqual([
    'a          | b',
    '---------- | ----------',
    'one two    | x',
    'three four |',
  ])
})
