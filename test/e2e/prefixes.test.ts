import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { evaluate, type TrainConfigInput } from 'lowrank'
import { beforeAll, expect, test } from 'vitest'
import { directTasks } from '../tasks.ts'
import { collect, lowrankHere, makeTinyModel, only, readMetrics, temporaryFolder } from './support.ts'

// Shared prefixes through the public API: what a run, an evaluation and a replay make of data that repeats an instruction.

const folder = temporaryFolder()
const [train, valid] = [join(folder, 'train.jsonl'), join(folder, 'valid.jsonl')]
let model: string

const instruction =
  'Say what the ticket is about: billing, shipping or a refund. Answer with one word, and nothing else. '.repeat(2)
const write = (path: string, count: number, from: number): void => {
  const lines = Array.from({ length: count }, (_, i) =>
    JSON.stringify({
      prompt: `${instruction}Ticket ${from + i}:${' order is late'.repeat(i % 4)}\n`,
      completion: ` ${['billing', 'shipping', 'a refund'][i % 3]}`,
    }),
  )
  writeFileSync(path, `${lines.join('\n')}\n`)
}

beforeAll(async () => {
  write(train, 32, 0)
  write(valid, 12, 500)
  model = await makeTinyModel(folder)
})

const run = (name: string, options: Partial<TrainConfigInput> = {}) =>
  collect({
    model,
    train,
    valid,
    outputDir: join(folder, name),
    learningRate: 1e-3,
    numTrainEpochs: 1,
    perDeviceTrainBatchSize: 8,
    saveSteps: 2,
    threads: 1,
    ...options,
  })

test('a run computes less, with the same examples a step, losses and evaluations', async () => {
  const [off, auto] = [await run('off', { sharePrefixes: 'off' }), await run('auto')]
  const [separate, shared] = [only(off, 'step'), only(auto, 'step')]
  expect(separate).toHaveLength(4)
  separate.forEach((step, i) => {
    const same = shared[i]!
    expect(same).toMatchObject({ step: step.step, epoch: step.epoch, labelTokens: step.labelTokens })
    expect(Math.abs(same.loss - step.loss)).toBeLessThan(1e-5)
    expect(Math.abs(same.gradNorm / step.gradNorm - 1)).toBeLessThan(1e-4)
    expect(same.tokens).toBeLessThan(step.tokens / 2)
  })
  const [before, after] = [off, auto].map((events) => only(events, 'eval')[0]!)
  expect(after).toMatchObject({ examples: 12, labelTokens: before!.labelTokens })
  expect(Math.abs(after!.loss - before!.loss)).toBeLessThan(1e-5)
})

test('with noise on embedded tokens, which each example has of its own, steps share nothing', async () => {
  const options = { neftuneNoiseAlpha: 5, maxSteps: 2, saveStrategy: 'no' } as const
  const [off, auto] = [await run('noise off', { ...options, sharePrefixes: 'off' }), await run('noise', options)]
  const lossesOf = (events: typeof off): number[] => only(events, 'step').map(({ loss }) => loss)
  expect(lossesOf(auto)).toEqual(lossesOf(off))
})

test('a run that went on is the same to the last byte, keeps the setting, and can be replayed by example', async () => {
  const options = { loraDropout: 0.1, packing: true } as const
  await run('whole', options)
  const resumed = join(folder, 'resumed')
  cpSync(join(folder, 'whole'), resumed, { recursive: true })
  rmSync(join(resumed, 'checkpoint-4'), { recursive: true })
  rmSync(join(resumed, 'adapter_model.safetensors'))
  await expect(run('resumed', { ...options, sharePrefixes: 'off', resume: true })).rejects.toThrow(
    /sharePrefixes: "auto" -> "off"/,
  )
  await run('resumed', { ...options, resume: true })
  const weights = ['whole', 'resumed'].map((name) => readFileSync(join(folder, name, 'adapter_model.safetensors')))
  expect(weights[0]!.equals(weights[1]!)).toBe(true)
  const outputDir = join(folder, 'whole')
  const { equal, loss, examples } = await directTasks.replay(outputDir, { step: 3, sort: 'batch' }, {})
  expect(equal).toBe(true)
  expect(loss).toBe(only(readMetrics(outputDir), 'step')[2]!.loss)
  expect(new Set(examples.map(({ line }) => line)).size).toBe(8)
  const labels = examples.reduce((sum, one) => sum + one.labelTokens, 0)
  expect(examples.reduce((sum, one) => sum + one.loss * one.labelTokens, 0) / labels).toBeCloseTo(loss, 6)
  for (const { line, completion } of examples) {
    const { completion: written } = JSON.parse(readFileSync(train, 'utf8').split('\n')[line - 1]!) as {
      completion: string
    }
    expect(completion.trim()).toContain(written.trim())
  }
})

test('evaluate takes the option, and data inspect says what is saved', async () => {
  const options = { model, data: valid }
  const [off, auto] = [await evaluate({ ...options, sharePrefixes: 'off' }), await evaluate(options)]
  expect(Math.abs(auto.loss - off.loss)).toBeLessThan(1e-5)
  const { stdout, code } = await lowrankHere(['data', 'inspect', train, '--model', model])
  expect(code).toBe(0)
  expect(stdout).toMatch(
    /^prefixes +[\d,]+ positions to compute in steps of 8 x 1 instead of [\d,]+,\s+\d\.\d times fewer/m,
  )
})
