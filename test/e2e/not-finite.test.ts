import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { loadModel } from 'lowrank'
import { beforeAll, expect, test } from 'vitest'
import { directTasks } from '../tasks.ts'
import { collect, makeTinyModel, temporaryFolder, writeData, writeElements } from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder, { train: 2, valid: 2 })
const adapter = join(folder, 'adapter')
let model: string

beforeAll(async () => {
  model = await makeTinyModel(folder)
  const options = { maxSteps: 1, maxLength: 64, saveStrategy: 'no' } as const
  await collect({ ...options, model, train: data.train, outputDir: adapter })
})

/** A copy of a folder in whose f32 tensor `name` the element 5, or all, are another number. */
function damaged(source: string, file: string, name: string, value: number, all = false): string {
  const copy = join(folder, `${Math.random()}`)
  cpSync(source, copy, { recursive: true })
  writeElements(join(copy, file), name, value, { at: 5, all })
  return copy
}

const up = 'model.layers.1.mlp.up_proj.weight'
const loraB = 'base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight'

const calls: Record<string, (broken: string) => Promise<unknown>> = {
  evaluate: (broken) => directTasks.evaluate({ model: broken, data: data.valid, maxLength: 64 }),
  quantize: (broken) => directTasks.quantize({ model: broken, output: `${broken}-quantized` }),
  generate: (broken) => loadModel({ model: broken }),
  train: (broken) =>
    collect({ model: broken, train: data.train, outputDir: `${broken}-out`, maxSteps: 1, maxLength: 64 }),
}

test.each(Object.keys(calls))('a weight that is no number is named by %s', async (name) => {
  for (const value of [NaN, Infinity, -Infinity]) {
    const broken = damaged(model, 'model.safetensors', up, value)
    const error: unknown = await calls[name]!(broken).catch((found: unknown) => found)
    expect(error).toMatchObject({ code: 'model' })
    expect(String(error)).toContain(`${join(broken, 'model.safetensors')}: tensor ${up} holds ${value} in element 5`)
  }
})

test('so is one of an adapter', async () => {
  const broken = damaged(adapter, 'adapter_model.safetensors', loraB, NaN)
  const error = await directTasks
    .evaluate({ model, adapter: broken, data: data.valid, maxLength: 64 })
    .catch((found: unknown) => found)
  expect(error).toMatchObject({ code: 'adapter' })
  expect(String(error)).toContain(`tensor ${loraB} holds NaN in element 5`)
})

test('weights that are finite and overflow are said to', async () => {
  const broken = damaged(model, 'model.safetensors', up, 3e38, true)
  const error = await directTasks
    .evaluate({ model: broken, data: data.valid, maxLength: 64 })
    .catch((found: unknown) => found)
  expect(error).toMatchObject({ code: 'model' })
  expect(String(error)).toContain('are finite, but what they compute is not')
})

test('nothing is generated from logits that are no numbers', async () => {
  const broken = await loadModel({ model: damaged(model, 'model.safetensors', up, 3e38, true) })
  await expect(broken.generate('Ticket', { maxNewTokens: 2 })).rejects.toThrow(
    'logits of the next token are not finite',
  )
  await broken.close()
})
