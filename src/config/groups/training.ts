import { z } from 'zod'
import { count, option, positive } from '../fields.ts'

/** What is trained, and on which batches. */
export const training = {
  method: option(z.enum(['lora', 'qlora', 'full']).default('lora'), {
    group: 'Training',
    description: 'Train an adapter, an adapter on a quantized base, or every weight',
  }),
  init: option(z.enum(['pretrained', 'random']).default('pretrained'), {
    group: 'Training',
    description: 'Start from the weights of the model folder, or from random ones (method full)',
  }),
  perDeviceTrainBatchSize: option(count.max(65536).default(8), {
    group: 'Training',
    description: 'Examples per forward and backward pass',
  }),
  gradientAccumulationSteps: option(count.max(65536).default(1), {
    group: 'Training',
    description: 'Passes per optimizer step',
  }),
  packing: option(z.boolean().default(false), {
    group: 'Training',
    description: 'Put several short examples into one row, each seeing itself alone: faster, with the same losses',
  }),
  sharePrefixes: option(z.enum(['auto', 'off']).default('auto'), {
    group: 'Training',
    description: 'Compute what examples begin with in common once, where that is faster, with the same losses',
  }),
  padToMultipleOf: option(count.max(65536).optional(), {
    group: 'Training',
    description: 'Pad rows to a multiple of so many positions',
    unset: 'no more than the longest row needs',
  }),
  groupByLength: option(z.boolean().default(false), {
    group: 'Training',
    description: 'Group examples of similar length into a step',
  }),
  numTrainEpochs: option(positive.default(3), { group: 'Training', description: 'Passes over the training data' }),
  maxSteps: option(z.union([z.literal(-1), count]).default(-1), {
    group: 'Training',
    description: 'Optimizer steps; overrides the number of epochs unless -1',
  }),
  seed: option(
    z
      .int()
      .min(0)
      .max(2 ** 32 - 1)
      .default(42),
    { group: 'Training', description: 'Seed of initialization, shuffling and dropout' },
  ),
}
