import { existsSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { profile, type ProfileConfigInput } from 'lowrank'
import { beforeAll, expect, test } from 'vitest'
import { makeTinyModel, temporaryFolder, writeData } from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder)
const outputDir = join(folder, 'out')
let config: ProfileConfigInput

beforeAll(async () => {
  const model = await makeTinyModel(folder)
  config = { model, ...data, outputDir, perDeviceTrainBatchSize: 4, maxLength: 96, gradientAccumulationSteps: 2 }
})

const left = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('lowrank-profile-'))

test.each(['lora', 'full'] as const)('a step of method %s, part by part', async (method) => {
  const before = left()
  const found = await profile({ ...config, method, maxSteps: 8, profileSteps: 2 })
  expect(found).toMatchObject({ steps: 2, activations: 'keep' })
  expect(found.tokens).toBeGreaterThan(0)
  const sum = found.parts.reduce((total, { seconds }) => total + seconds, 0)
  expect(sum).toBeCloseTo(found.seconds, 9)
  const names = found.parts.map(({ what }) => what)
  expect(names).toEqual(expect.arrayContaining(['matrix products', 'softmax', 'optimizer', 'elementwise']))
  const runs = Object.fromEntries(found.programs.map((program) => [program.name, program.runs]))
  // Two blocks, and two micro-batches a step.
  expect(runs).toMatchObject({ 'block.forward': 4, 'block.backward': 4, 'head.train': 2 })
  const { flops, rate, limit, share } = found.products
  expect(rate).toBeGreaterThan(0)
  expect(share).toBeCloseTo(flops / limit / found.seconds, 9)
  expect(existsSync(outputDir)).toBe(false)
  expect(left()).toEqual(before)
})

test('more steps than the run takes are refused', async () => {
  await expect(profile({ ...config, maxSteps: 3, profileSteps: 3 })).rejects.toMatchObject({
    code: 'config',
    message: '4 steps are needed to measure 3: this run takes 3',
  })
})
