import { expect, test } from 'vitest'
import { scheduleFactor, type Schedule } from './schedule.ts'

// From transformers 5.23.0, the rate of each of 8 steps:
//   p = torch.nn.Parameter(torch.zeros(1)); o = torch.optim.SGD([p], lr=1.0)
//   s = transformers.get_scheduler(name, o, num_warmup_steps=warmupSteps, num_training_steps=8)
//   for _ in range(8): print(s.get_last_lr()[0]); o.step(); s.step()
const third = 1 / 3
const golden: readonly (readonly [Schedule, number, readonly number[]])[] = [
  ['linear', 0, [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]],
  ['linear', 3, [0, third, 2 * third, 1, 0.8, 0.6, 0.4, 0.2]],
  ['constant', 0, [1, 1, 1, 1, 1, 1, 1, 1]],
  ['constant', 3, [1, 1, 1, 1, 1, 1, 1, 1]],
  ['constant_with_warmup', 0, [1, 1, 1, 1, 1, 1, 1, 1]],
  ['constant_with_warmup', 3, [0, third, 2 * third, 1, 1, 1, 1, 1]],
  [
    'cosine',
    0,
    [
      1, 0.9619397662556434, 0.8535533905932737, 0.6913417161825449, 0.5, 0.30865828381745514, 0.14644660940672627,
      0.03806023374435663,
    ],
  ],
  [
    'cosine',
    3,
    [0, third, 2 * third, 1, 0.9045084971874737, 0.6545084971874737, 0.34549150281252633, 0.09549150281252633],
  ],
]

test.each(golden)('%s with %i warmup steps is that of transformers', (schedule, warmupSteps, rates) => {
  rates.forEach((rate, step) => expect(scheduleFactor(schedule, { step, steps: 8, warmupSteps })).toBeCloseTo(rate, 14))
})

test('ends at nothing, and stays there', () => {
  for (const schedule of ['linear', 'cosine'] as const) {
    for (const step of [8, 9]) expect(scheduleFactor(schedule, { step, steps: 8, warmupSteps: 2 })).toBe(0)
  }
})

test('a warmup as long as the run, or longer, never arrives', () => {
  const factors = [0, 1, 2, 3].map((step) => scheduleFactor('linear', { step, steps: 4, warmupSteps: 4 }))
  expect(factors).toEqual([0, 0.25, 0.5, 0.75])
})
