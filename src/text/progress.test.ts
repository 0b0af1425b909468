import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { ReadProgress } from './progress.ts'

const folder = mkdtempSync(join(tmpdir(), 'lowrank-progress-'))
afterAll(() => rmSync(folder, { recursive: true }))
const made = { examples: 1200, tokens: 34_567 }

test('how far all files are, and how long it takes: the first time after a while, then seldom', async () => {
  const sources = ['a', 'b'].map((name) => ({ path: join(folder, name), weight: 1 }))
  for (const { path } of sources) writeFileSync(path, new Uint8Array(10e6))
  const said: string[] = []
  let time = 100
  const progress = await ReadProgress.of(sources, { report: (message) => said.push(message), now: () => time })
  progress.add(2e6)
  time += 4
  progress.look('a', made)
  expect(said).toEqual([])
  time += 4
  progress.look('a', made)
  expect(said).toEqual(['tokenizing a: 2 MB of 20 MB, 1m 12s left (1,200 examples, 34,567 tokens)'])
  time += 1
  progress.look('a', made)
  expect(said).toHaveLength(1)
  progress.add(20e6)
  time += 100
  progress.look('b', made)
  expect(said[1]).toBe('tokenizing b: 20 MB of 20 MB, 0.0 s left (1,200 examples, 34,567 tokens)')
})

test('of a pipe nobody knows how long it is', async () => {
  const said: string[] = []
  let time = 0
  const progress = await ReadProgress.of([{ path: '-', weight: 1 }], {
    report: (text) => said.push(text),
    now: () => time,
  })
  progress.add(3e6)
  time = 6
  progress.look('standard input', { examples: 1, tokens: 2 })
  expect(said).toEqual(['tokenizing standard input: 3 MB in 6.0 s (1 example, 2 tokens)'])
})
