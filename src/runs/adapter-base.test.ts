import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { parseTrainConfig, quantizationOf } from '../config/index.ts'
import { baseOfAdapter } from './adapter-base.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lowrank-'))
})
afterEach(() => rm(folder, { recursive: true }))

const required = { model: 'm', train: 't', outputDir: 'o' }
const qlora = parseTrainConfig({ ...required, method: 'qlora' })
const put = (name: string, json: unknown): Promise<void> => writeFile(join(folder, name), JSON.stringify(json))

test.each([
  ['as it is stored', parseTrainConfig(required)],
  ['in 4 bits', qlora],
  ['in 8 bits', parseTrainConfig({ ...required, method: 'qlora', loadIn8bit: true })],
])('the record of a run says that the base was held %s', async (_, config) => {
  await put('run.json', { config, status: 'done' })
  const unknown = { name: 'm', hashes: {}, origin: undefined }
  const file = join(folder, 'run.json')
  expect(await baseOfAdapter(folder)).toEqual({ quantization: quantizationOf(config), file, ...unknown })
})

test('so does that of a checkpoint', async () => {
  const model = { id: 'org/name', revision: 'abc' }
  await put('trainer_state.json', { inputs: { config: qlora, hashes: { model: '12ab' }, origins: { model } } })
  const file = join(folder, 'trainer_state.json')
  const known = { name: 'm', hashes: { model: '12ab' }, origin: model }
  expect(await baseOfAdapter(folder)).toEqual({ quantization: quantizationOf(qlora), file, ...known })
})

test.each([
  ['nothing', undefined],
  ['a record of another program', { config: { loadIn4bit: 'yes' } }],
  ['another trainer_state.json', { global_step: 500 }],
])('nothing is known from %s', async (_, json) => {
  if (json !== undefined) for (const name of ['run.json', 'trainer_state.json']) await put(name, json)
  else await mkdir(join(folder, 'run.json'))
  expect(await baseOfAdapter(folder)).toBeUndefined()
})
