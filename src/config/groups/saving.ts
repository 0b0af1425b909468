import { z } from 'zod'
import { count, option, path, size, sizeMeta } from '../fields.ts'

/** What is written, and when. */
export const saving = {
  saveStrategy: option(z.enum(['no', 'steps', 'epoch']).default('steps'), {
    group: 'Saving and resuming',
    description: 'When to write a checkpoint; the end result is always written',
    resume: 'free',
  }),
  saveSteps: option(count.default(500), {
    group: 'Saving and resuming',
    description: 'Steps between two checkpoints',
    resume: 'free',
  }),
  saveTotalLimit: option(count.optional(), {
    group: 'Saving and resuming',
    description: 'Checkpoints kept; the oldest go first',
    resume: 'free',
    unset: 'all',
  }),
  saveDtype: option(z.enum(['auto', 'f32', 'bf16', 'f16']).default('auto'), {
    group: 'Saving and resuming',
    description: 'How the weights of a whole model are stored (method full); auto: as in the base',
    resume: 'free',
  }),
  /** transformers' default. */
  maxShardSize: option(size.prefault('50GB'), {
    group: 'Saving and resuming',
    description: 'A checkpoint larger than this is split into files of at most this size',
    resume: 'free',
    ...sizeMeta,
  }),
  loadBestModelAtEnd: option(z.boolean().default(false), {
    group: 'Saving and resuming',
    description: 'Keep the weights with the best evaluation (metric-for-best-model, else the loss), not the last',
  }),
  overwriteOutputDir: option(z.boolean().default(false), {
    group: 'Saving and resuming',
    description: 'Replace what other programs left in output-dir, where this run writes files of the same names',
    resume: 'free',
  }),
  resume: option(z.boolean().default(false), {
    group: 'Saving and resuming',
    description: 'Resume from the newest whole checkpoint in output-dir; where there is none yet, start',
    resume: 'free',
  }),
  resumeFrom: option(path.optional(), {
    group: 'Saving and resuming',
    description: 'Resume from this checkpoint',
    resume: 'free',
    placeholder: 'DIR',
  }),
  resumeAnyway: option(z.boolean().default(false), {
    group: 'Saving and resuming',
    description: 'Resume although options or data have changed since the checkpoint',
    resume: 'free',
  }),
}
