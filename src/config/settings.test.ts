import { expect, test } from 'vitest'
import { parseTrainConfig, trainOptions, type TrainConfig } from './index.ts'

const required = { model: 'm', train: 't.jsonl', outputDir: 'out' }

function byFlags(options: Readonly<Record<string, string>>): TrainConfig {
  const entries = Object.entries({ model: 'm', train: 't', 'output-dir': 'o', ...options }).map(([name, value]) => ({
    name,
    value,
    where: `--${name}`,
  }))
  return trainOptions.read([{ entries, spelling: 'flag', text: true }])
}

test.each([
  ['min_lr_rate=0.3,num_cycles=1.5', { minLrRate: 0.3, numCycles: 1.5 }],
  ['minLr=1e-6', { minLr: 1e-6 }],
  ['{"min_lr": 1e-6}', { minLr: 1e-6 }],
])('settings of a schedule from a flag: %s', (text, settings) => {
  const config = byFlags({ 'lr-scheduler-type': 'cosine_with_min_lr', 'lr-scheduler-kwargs': text })
  expect(config.lrSchedulerKwargs).toEqual(settings)
  expect(parseTrainConfig(config)).toEqual(config)
})

test('settings of an optimizer as transformers writes them', () => {
  expect(byFlags({ optim: 'sgd', 'optim-args': 'momentum=0.9, nesterov=True' }).optimArgs).toEqual({
    momentum: 0.9,
    nesterov: true,
  })
})

test.each([
  ['wsd', 'warmup_stable_decay'],
  ['warmup_stable_decay', 'warmup_stable_decay'],
])('the schedule %s is %s', (lrSchedulerType, expected) => {
  expect(parseTrainConfig({ ...required, lrSchedulerType }).lrSchedulerType).toBe(expected)
})

const minLr = { lrSchedulerType: 'cosine_with_min_lr' }

test.each([
  [
    { lrSchedulerType: 'cosine', lrSchedulerKwargs: { minLr: 0 } },
    'lrSchedulerKwargs.minLr: unknown; cosine takes numCycles',
  ],
  [{ lrSchedulerKwargs: { power: 2 } }, 'lrSchedulerKwargs.power: unknown; linear takes nothing'],
  [
    { ...minLr, lr_scheduler_kwargs: { min_lr: 1e-6, min_lr_rate: 0.1 } },
    'lr_scheduler_kwargs.minLr: cannot be combined with minLrRate; choose one',
  ],
  [
    { ...minLr, lrSchedulerKwargs: { minLr: 1e-3 } },
    'lrSchedulerKwargs.minLr: found 0.001, expected at most learningRate, which is 0.00005',
  ],
  [
    { ...minLr, lrSchedulerKwargs: { minLrRate: 2 } },
    'lrSchedulerKwargs.minLrRate: found 2, expected a number from 0 up to 1',
  ],
  [{ ...minLr, lrSchedulerKwargs: { minLrRate: 0.1, min_lr_rate: 0.2 } }, 'lrSchedulerKwargs.min_lr_rate: given twice'],
  [
    { lrSchedulerType: 'wsd', lrSchedulerKwargs: { decayType: 'sqrt' } },
    'lrSchedulerKwargs.decayType: found "sqrt", expected one of linear, cosine, 1-sqrt',
  ],
  [
    { lrSchedulerType: 'polynomial', learningRate: 1e-8 },
    'lrSchedulerKwargs.lrEnd: found 1e-7, expected less than learningRate, which is 1e-8',
  ],
  [{ optimArgs: { momentum: 0.9 } }, 'optimArgs.momentum: unknown; adamw takes nothing'],
  [
    { optim: 'sgd', optimArgs: { weight_decay: 0.1 } },
    'optimArgs.weight_decay: unknown; sgd takes momentum, dampening, nesterov',
  ],
  [{ optim: 'sgd', optimArgs: { nesterov: true } }, 'optimArgs.nesterov: needs a momentum and no dampening'],
  [
    { optim: 'sgd', optimArgs: { nesterov: 'perhaps', momentum: 0.9 } },
    'optimArgs.nesterov: found "perhaps", expected true or false',
  ],
  [{ warmupSteps: 1.5 }, 'warmupSteps: found 1.5, expected a whole number of steps, or a share of all steps'],
  [{ labelSmoothingFactor: 1 }, 'labelSmoothingFactor: found 1, expected a number from 0 below 1'],
  [{ neftuneNoiseAlpha: 0 }, 'neftuneNoiseAlpha: found 0, expected a number above 0'],
  [
    { lrSchedulerType: 'reduce_lr_on_plateau' },
    'lrSchedulerType: found "reduce_lr_on_plateau", expected one of linear,',
  ],
  [{ loraplus_weight_decay: 0.1 }, 'loraplus_weight_decay: unknown option. Use "weight_decay"'],
])('%j is refused', (extra, message) => {
  expect(() => parseTrainConfig({ ...required, ...extra })).toThrow(message)
})
