import { z } from 'zod'
import { beta, COUNT_MAX, option } from '../fields.ts'

/** How the weights follow their gradients. */
export const optimization = {
  learningRate: option(z.number().positive().max(100).default(5e-5), {
    group: 'Optimization',
    description: 'Highest learning rate',
  }),
  lrSchedulerType: option(z.enum(['linear', 'constant', 'constant_with_warmup', 'cosine']).default('linear'), {
    group: 'Optimization',
    description: 'Course of the learning rate after the warmup',
  }),
  warmupSteps: option(z.int().min(0).max(COUNT_MAX).default(0), {
    group: 'Optimization',
    description: 'Steps over which the learning rate rises from 0; overrides warmup-ratio unless 0',
  }),
  warmupRatio: option(z.number().min(0).max(1).default(0), {
    group: 'Optimization',
    description: 'The same as a share of all steps',
  }),
  optim: option(z.enum(['adamw', 'adamw-8bit']).default('adamw'), {
    group: 'Optimization',
    description: 'Optimizer: AdamW with its state in f32, or in blocks of 8 bits',
  }),
  weightDecay: option(z.number().min(0).max(100).default(0), {
    group: 'Optimization',
    description: 'Decoupled weight decay of AdamW',
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
}
