import { z } from 'zod'
import { count, option } from '../fields.ts'

/** What is reported of a run while it goes. */
export const watching = {
  loggingSteps: option(count.default(500), {
    group: 'Logging and evaluation',
    description: 'Steps between two log lines',
    resume: 'free',
  }),
  evalStrategy: option(z.enum(['no', 'steps', 'epoch']).optional(), {
    group: 'Logging and evaluation',
    description: 'When to evaluate',
    resume: 'evaluations',
    unset: 'steps with --eval-steps, else epoch with --valid, else no',
  }),
  evalSteps: option(count.optional(), {
    group: 'Logging and evaluation',
    description: 'Steps between two evaluations',
    resume: 'evaluations',
    unset: 'logging-steps, where the strategy is steps',
  }),
  evalOnStart: option(z.boolean().default(false), {
    group: 'Logging and evaluation',
    description: 'Evaluate before the first step too, to compare',
    resume: 'evaluations',
  }),
  perDeviceEvalBatchSize: option(count.max(65536).default(8), {
    group: 'Logging and evaluation',
    description: 'Examples per batch of an evaluation',
    resume: 'evaluations',
  }),
  samples: option(z.int().min(0).max(1000).default(0), {
    group: 'Logging and evaluation',
    description: 'Validation prompts completed before and after training, to compare',
    resume: 'free',
  }),
  onSpike: option(z.enum(['warn', 'skip', 'stop']).default('warn'), {
    group: 'Watching',
    description: 'On a loss or gradient norm far outside its recent range: warn, skip the step, or end the run',
  }),
  /** As in transformers' `EarlyStoppingCallback`, and so is the next. */
  earlyStoppingPatience: option(count.optional(), {
    group: 'Watching',
    description: 'Evaluations in a row without improvement that end the run',
    unset: 'never',
  }),
  earlyStoppingThreshold: option(z.number().min(0).max(1e6).default(0), {
    group: 'Watching',
    description: 'What the evaluation loss, or metric-for-best-model, must improve by over the best so far to count',
  }),
}
