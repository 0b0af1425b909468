import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

test('300 damaged files are refused, or do no harm', async () => {
  const args = ['run', '-s', 'fuzz', '--', '--count', '300', '--direct', '--jobs', '2']
  const { stdout } = await promisify(execFile)('npm', args).catch((error: { stdout: string }) => error)
  console.log(stdout)
  expect(stdout).toMatch(/^300 damaged files, 0 failed; /m)
}, 180_000)
