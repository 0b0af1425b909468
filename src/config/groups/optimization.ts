import { z } from 'zod'
import { beta, COUNT_MAX, name, option, positive } from '../fields.ts'
import { optimizers, schedules } from '../settings.ts'

const settings = z.record(name, z.union([z.number(), z.boolean(), z.string().max(256)]))
const settingsMeta = { placeholder: 'KEY=N,...', accepts: 'names, each with a number, a string, true or false' }

/** How the weights follow their gradients. */
export const optimization = {
  learningRate: option(z.number().positive().max(100).default(5e-5), {
    group: 'Optimization',
    description: 'Highest learning rate',
  }),
  lrSchedulerType: option(z.enum(schedules).default('linear'), {
    group: 'Optimization',
    description: 'Schedule of the learning rate after the warmup',
    placeholder: 'NAME',
  }),
  lrSchedulerKwargs: option(settings.optional(), {
    group: 'Optimization',
    description: 'Settings of the schedule, as min_lr_rate=0.1 for cosine_with_min_lr',
    ...settingsMeta,
  }),
  warmupSteps: option(
    z
      .number()
      .min(0)
      .max(COUNT_MAX)
      .refine((value) => value < 1 || Number.isInteger(value))
      .default(0),
    {
      group: 'Optimization',
      description:
        'Steps over which the learning rate rises from 0, or below 1 their share of all steps; overrides warmup-ratio unless 0',
      accepts: 'a whole number of steps, or a share of all steps from 0 below 1',
    },
  ),
  warmupRatio: option(z.number().min(0).max(1).default(0), {
    group: 'Optimization',
    description: 'The warmup as a share of all steps',
  }),
  optim: option(z.enum(optimizers).default('adamw'), {
    group: 'Optimization',
    description: 'Optimizer: AdamW with its state in f32, or in blocks of 8 bits, or stochastic gradient descent',
  }),
  optimArgs: option(settings.optional(), {
    group: 'Optimization',
    description: 'Settings of the optimizer, as momentum=0.9,nesterov=true for sgd',
    ...settingsMeta,
  }),
  loraplusLrRatio: option(positive.optional(), {
    group: 'Optimization',
    description: "LoRA+: the adapter's matrices B, and biases, learn at so many times the learning rate",
    unset: '1',
  }),
  weightDecay: option(z.number().min(0).max(100).default(0), {
    group: 'Optimization',
    description: 'Decay of weights other than biases and norms: decoupled in AdamW, added to the gradient in SGD',
  }),
  adamBeta1: option(beta.default(0.9), { group: 'Optimization', description: 'Decay of the first moment' }),
  adamBeta2: option(beta.default(0.999), { group: 'Optimization', description: 'Decay of the second moment' }),
  adamEpsilon: option(z.number().positive().max(1).default(1e-8), {
    group: 'Optimization',
    description: 'Added to the root of the second moment',
  }),
  maxGradNorm: option(z.number().min(0).max(1e6).default(1), {
    group: 'Optimization',
    description: 'Gradients with a larger norm are scaled down to it; 0 switches clipping off',
  }),
  labelSmoothingFactor: option(z.number().min(0).lt(1).default(0), {
    group: 'Optimization',
    description: 'Share of each label that is spread over the whole vocabulary, in the training loss',
  }),
  neftuneNoiseAlpha: option(positive.optional(), {
    group: 'Optimization',
    description: 'NEFTune: magnitude of the noise on the embeddings while training',
    unset: 'none',
  }),
}
