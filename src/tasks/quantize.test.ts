import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { quantizeOptions } from '../commands/options.fixture.ts'
import { resultOf } from '../util/task.ts'
import { runQuantize } from './quantize.ts'

const model = fileURLToPath(new URL('../../test/golden/bias-untied', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'lowrank-quantize-'))
afterAll(() => rmSync(folder, { recursive: true }))

test('cancelling stops before the next weight and takes what was written away', async () => {
  const output = join(folder, 'cancelled')
  mkdirSync(output)
  let asked = 0
  const config = quantizeOptions.parse({ model, output, maxShardSize: '10KB' })
  const run = resultOf(runQuantize(config, { cancelled: () => ++asked > 5 }))
  await expect(run).rejects.toMatchObject({ code: 'cancelled' })
  expect(asked).toBe(6)
  expect(readdirSync(output)).toEqual([])
})

test('what a killed run left is replaced', async () => {
  const output = join(folder, 'killed')
  mkdirSync(join(output, '.checkpoint.tmp'), { recursive: true })
  await resultOf(runQuantize(quantizeOptions.parse({ model, output }), { cancelled: () => false }))
  expect(readdirSync(output).sort()).toEqual(['config.json', 'generation_config.json', 'model.safetensors'])
})

test('the folder of the model under another name is refused', async () => {
  const output = join(folder, 'link')
  symlinkSync(model, output)
  const before = readdirSync(model)
  const run = resultOf(runQuantize(quantizeOptions.parse({ model, output }), { cancelled: () => false }))
  await expect(run).rejects.toThrow(/is the folder of the model itself/)
  expect(readdirSync(model)).toEqual(before)
  expect(existsSync(join(model, 'config.json'))).toBe(true)
})
