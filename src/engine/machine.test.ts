import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { peakMemory } from './machine.ts'

test('the peak of a process is its own, not that of the one that started it', () => {
  const held = Buffer.alloc(400e6, 1)
  const own = peakMemory()
  expect(own).toBeGreaterThan(400e6)
  const machine = new URL('../../dist/engine/machine.js', import.meta.url)
  const script = `import { peakMemory } from ${JSON.stringify(machine.href)}; console.log(peakMemory())`
  const child = Number(execFileSync(process.execPath, ['--input-type=module', '--eval', script], { encoding: 'utf8' }))
  expect(child).toBeGreaterThan(20e6)
  expect(child).toBeLessThan(200e6)
  expect(held.at(-1)).toBe(1)
})
