import { z } from 'zod'
import { option } from '../fields.ts'

/** How a model is held that generates. */
export const held = {
  precision: option(z.enum(['exact', 'fast', 'fast-4bit']).default('exact'), {
    group: 'Generation',
    description:
      'exact: products in f32, as in training; fast, fast-4bit: in integers of 8 or 4 bits, for which the weights are rounded',
  }),
}

export type Precision = z.output<typeof held.precision>
