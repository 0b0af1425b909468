import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { parseTrainConfig, trainSchema } from '../../src/config/index.ts'
import { learningRates } from '../../src/train/schedule.ts'

/** Made by `make_schedule_golden.py` with transformers. */
interface Golden {
  readonly cases: readonly {
    readonly options: { readonly lr_scheduler_type: string; readonly learning_rate: number }
    readonly steps: number
    readonly rates: readonly number[]
  }[]
}

const path = fileURLToPath(new URL('schedules/golden.json', import.meta.url))
const { cases } = JSON.parse(await readFile(path, 'utf8')) as Golden
const required = { model: 'm', train: 't', outputDir: 'o' }

let largest = 0
afterAll(() => console.info(`largest difference from transformers: ${largest.toExponential(1)} of the highest rate`))

test('every schedule is among the cases', () => {
  const covered = new Set(cases.map(({ options }) => options.lr_scheduler_type))
  expect([...covered].sort()).toEqual([...trainSchema.shape.lrSchedulerType.unwrap().options].sort())
  expect(cases).toHaveLength(60)
})

test.each(cases.map((one) => [JSON.stringify(one.options), one] as const))('%s', (_, { options, steps, rates }) => {
  const rateOf = learningRates(parseTrainConfig({ ...required, ...options }), steps)
  expect(rates).toHaveLength(steps + 2)
  rates.forEach((rate, step) => {
    const difference = Math.abs(rateOf(step) - rate) / options.learning_rate
    largest = Math.max(largest, difference)
    expect(difference, `step ${step}`).toBeLessThan(1e-12)
  })
})
