import { expect, test } from 'vitest'
import type { ScheduleConfig } from './config.ts'
import { learningRates } from './schedule.ts'

// The courses themselves are compared with transformers in test/golden/schedules.test.ts.

const linear = { learningRate: 1, lrSchedulerType: 'linear', warmupSteps: 0, warmupRatio: 0 } as const

function rates(changes: Partial<ScheduleConfig>, steps: number): number[] {
  const rateOf = learningRates({ ...linear, ...changes }, steps)
  return Array.from({ length: steps }, (_, step) => rateOf(step))
}

test('a warmup is a number of steps, or their share of all, rounded up', () => {
  const three = rates({ warmupSteps: 3 }, 8)
  expect(three.slice(0, 4)).toEqual([0, 1 / 3, 2 / 3, 1])
  expect(rates({ warmupSteps: 0.3 }, 8)).toEqual(three)
  expect(rates({ warmupRatio: 0.3 }, 8)).toEqual(three)
})

test('warmup steps, or their share, come before the ratio', () => {
  expect(rates({ warmupSteps: 3, warmupRatio: 0.9 }, 8)).toEqual(rates({ warmupSteps: 3 }, 8))
  expect(rates({ warmupSteps: 0.3, warmupRatio: 0.9 }, 8)).toEqual(rates({ warmupSteps: 3 }, 8))
})

test('a warmup as long as the run, or longer, never arrives', () => {
  expect(rates({ warmupSteps: 4 }, 4)).toEqual([0, 0.25, 0.5, 0.75])
  expect(rates({ warmupRatio: 1 }, 4)).toEqual([0, 0.25, 0.5, 0.75])
})

test('the decay of warmup_stable_decay is a tenth of the run unless it is set', () => {
  const course = rates({ lrSchedulerType: 'warmup_stable_decay' }, 40)
  expect(course.slice(0, 37)).toEqual(new Array<number>(37).fill(1))
  expect(course[39]).toBeLessThan(0.2)
})
