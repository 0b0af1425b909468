import { cpSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { directTasks } from '../tasks.ts'
import { collect, flags, lowrankHere, makeTinyModel, only, readMetrics, temporaryFolder, writeData } from './support.ts'

// Methods are compared by changing one word: what a method does not use is reported, and refused by none.

const folder = temporaryFolder()
const data = writeData(folder)
const shared = {
  ...data,
  maxSteps: 1,
  maxLength: 64,
  saveStrategy: 'no',
  r: 4,
  targetModules: 'all-linear',
  bnb4bitQuantType: 'fp4',
  saveDtype: 'bf16',
} as const
const expected = {
  lora: [
    'method lora stores an adapter in f32: saveDtype is not used',
    'this run does not quantize the base to 4 bits: bnb4bitQuantType is not used',
  ],
  qlora: ['method qlora stores an adapter in f32: saveDtype is not used'],
  full: ['method full trains every weight: r, targetModules and bnb4bitQuantType are not used'],
} as const
const methods = ['lora', 'qlora', 'full'] as const

let model = ''
beforeAll(async () => {
  model = await makeTinyModel(folder)
})

const warningsOf = (outputDir: string): string[] =>
  only(readMetrics(outputDir), 'warning').map(({ message }) => message)

test.each(methods)('a file of options with --method %s', async (method) => {
  const file = join(folder, 'run.yaml')
  writeFileSync(file, JSON.stringify({ ...shared, model }))
  const outputDir = join(folder, `file-${method}`)
  const { code, stderr } = await lowrankHere(['train', file, ...flags({ method, outputDir })])
  expect(code, stderr).toBe(0)
  for (const message of expected[method]) expect(stderr.split('\n')).toContain(`warning: ${message}`)
  expect(warningsOf(outputDir)).toEqual(expected[method])
})

test.each(methods)('the same options through the API with method %s', async (method) => {
  const outputDir = join(folder, `api-${method}`)
  const events = await collect({ ...shared, model, method, outputDir })
  expect(only(events, 'warning').map(({ message }) => message)).toEqual(expected[method])
  expect(warningsOf(outputDir)).toEqual(expected[method])
})

test('a quantized base that was asked for is refused where it is trained itself', async () => {
  const args = flags({ model, ...data, outputDir: join(folder, 'refused'), method: 'full', loadIn4bit: true })
  const { code, stderr } = await lowrankHere(['train', ...args])
  expect(code, stderr).toBe(2)
  expect(stderr).toContain('--load-in-4bit: --method full trains every weight, and a quantized one cannot be trained')
})

test('an adapter is evaluated on a base held as the run held it, unless something else is said', async () => {
  const outputDir = join(folder, 'held')
  await collect({ ...data, maxSteps: 1, maxLength: 64, model, method: 'qlora', outputDir })
  const said: string[] = []
  const lossOf = async (adapter: string, options: object = {}): Promise<number> => {
    const config = { model, adapter, data: data.valid, maxLength: 64, ...options }
    return (await directTasks.evaluate(config, { onStatus: (message) => said.push(message) })).loss
  }
  const [held, stored] = [await lossOf(outputDir), await lossOf(outputDir, { loadIn4bit: false })]
  expect(held).not.toBe(stored)
  expect(await lossOf(outputDir, { method: 'qlora' })).toBe(held)
  expect(said).toEqual([
    `base model: 4-bit nf4 with double quantization in blocks of 64 (by ${join(outputDir, 'run.json')})`,
  ])
  // As it comes from elsewhere.
  const bare = join(folder, 'bare')
  cpSync(outputDir, bare, { recursive: true })
  rmSync(join(bare, 'run.json'))
  expect(await lossOf(bare)).toBe(stored)
  expect(said.at(-1)).toBe(`base model: as it is stored (${bare} has no run.json that says how it was held)`)
})
