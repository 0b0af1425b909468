import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { writeBundle } from '../util/bundle.fixture.ts'
import { peakMemory } from './machine.ts'

const folder = mkdtempSync(join(tmpdir(), 'lowrank-machine-'))
afterAll(() => rmSync(folder, { recursive: true }))

test('the peak of a process is its own, not that of the one that started it', async () => {
  const held = Buffer.alloc(400e6, 1)
  const own = peakMemory()
  expect(own).toBeGreaterThan(400e6)
  const machine = await writeBundle(new URL('./machine.ts', import.meta.url), folder)
  const script = `import { peakMemory } from ${JSON.stringify(machine)}; console.log(peakMemory())`
  const child = Number(execFileSync(process.execPath, ['--input-type=module', '--eval', script], { encoding: 'utf8' }))
  expect(child).toBeGreaterThan(20e6)
  expect(child).toBeLessThan(200e6)
  expect(held.at(-1)).toBe(1)
})
