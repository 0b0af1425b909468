import { cpSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import type { TrainConfigInput } from 'lowrank'
import { integerProductsAreExact } from '../../src/engine/product-probe.ts'
import { collect, hashFolder, last, makeTinyModel, only, readJson, temporaryFolder, writeData } from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder, { train: 12, valid: 4 })
const exact = await integerProductsAreExact(2)
const whyAsked = exact
  ? 'as asked for'
  : 'as asked for; this processor has no fast exact products of integers, slower than f32'
const adapterFile = 'adapter_model.safetensors'
let common: Omit<TrainConfigInput, 'outputDir'>

beforeAll(async () => {
  const model = await makeTinyModel(folder)
  const steps = { maxSteps: 6, evalSteps: 6, saveSteps: 2, perDeviceTrainBatchSize: 2 }
  common = { model, ...data, ...steps, maxLength: 64, learningRate: 1e-2, targetModules: 'all-linear', threads: 1 }
})

describe('products in slices of 8 bits', () => {
  test.each([{}, { activations: 'recompute' }, { method: 'qlora', loadIn8bit: true }] as const)(
    'lead where those in f32 lead: %o',
    async (options) => {
      const name = JSON.stringify(options).replaceAll(/\W/g, '')
      const [highest, high] = await Promise.all(
        (['highest', 'high'] as const).map((matmulPrecision) =>
          collect({ ...common, ...options, matmulPrecision, outputDir: join(folder, `${matmulPrecision}${name}`) }),
        ),
      )
      expect(last(only(high!, 'plan'))).toMatchObject({ matmulPrecision: 'high', products: whyAsked })
      const [one, other] = [last(only(highest!, 'eval')).loss, last(only(high!, 'eval')).loss]
      expect(other).not.toBe(one)
      expect(Math.abs(other - one)).toBeLessThan(1e-3)
    },
  )

  test('are kept by a run that goes on, whatever is asked for then', async () => {
    const whole = join(folder, 'high')
    const outputDir = join(folder, 'resumed')
    cpSync(whole, outputDir, { recursive: true })
    for (const name of ['checkpoint-4', 'checkpoint-6', adapterFile]) rmSync(join(outputDir, name), { recursive: true })
    const events = await collect({ ...common, outputDir, matmulPrecision: 'highest', resume: true })
    expect(last(only(events!, 'plan'))).toMatchObject({ matmulPrecision: 'high', products: 'as the run began' })
    expect(hashFolder(outputDir)[adapterFile]).toBe(hashFolder(whole)[adapterFile])
    expect(readJson(join(outputDir, 'checkpoint-6/trainer_state.json'))).toMatchObject({
      memory: { matmulPrecision: 'high' },
    })
  })
})

test('are not taken for layers that are too narrow, and have no meaning where every weight is trained', async () => {
  const narrow = await collect({ ...common, outputDir: join(folder, 'auto'), maxSteps: 1 })
  expect(last(only(narrow!, 'plan'))).toMatchObject({
    matmulPrecision: 'highest',
    products: expect.stringContaining('narrow') as string,
  })
  const full = { method: 'full', matmulPrecision: 'high', maxSteps: 1 } as const
  const { targetModules: _, ...others } = common
  const every = await collect({ ...others, ...full, outputDir: join(folder, 'full') })
  expect(last(only(every!, 'plan'))).toMatchObject({
    matmulPrecision: 'highest',
    products: expect.stringContaining('of which there are none') as string,
  })
})
