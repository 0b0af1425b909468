import { z } from 'zod'
import { count, option, path, size, sizeMeta } from '../fields.ts'

/** What is written, and when. */
export const saving = {
  saveStrategy: option(z.enum(['no', 'steps', 'epoch']).default('steps'), {
    group: 'Saving and resuming',
    description: 'When to write a checkpoint; the end result is always written',
  }),
  saveSteps: option(count.default(500), {
    group: 'Saving and resuming',
    description: 'Steps between two checkpoints',
  }),
  saveTotalLimit: option(count.optional(), {
    group: 'Saving and resuming',
    description: 'Checkpoints kept; the oldest go first',
    unset: 'all',
  }),
  saveDtype: option(z.enum(['auto', 'f32', 'bf16', 'f16']).default('auto'), {
    group: 'Saving and resuming',
    description: 'How the weights of a whole model are stored (method full); auto: as in the base',
  }),
  /** transformers' default. */
  maxShardSize: option(size.prefault('50GB'), {
    group: 'Saving and resuming',
    description: 'A checkpoint larger than this is split into files of at most this size',
    ...sizeMeta,
  }),
  loadBestModelAtEnd: option(z.boolean().default(false), {
    group: 'Saving and resuming',
    description: 'Keep the weights with the lowest evaluation loss, not the last',
  }),
  overwriteOutputDir: option(z.boolean().default(false), {
    group: 'Saving and resuming',
    description: 'Replace what other programs left in output-dir, where this run writes files of the same names',
  }),
  resume: option(z.boolean().default(false), {
    group: 'Saving and resuming',
    description: 'Resume from the newest whole checkpoint in output-dir; where there is none yet, start',
  }),
  resumeFrom: option(path.optional(), {
    group: 'Saving and resuming',
    description: 'Resume from this checkpoint',
    placeholder: 'DIR',
  }),
  resumeAnyway: option(z.boolean().default(false), {
    group: 'Saving and resuming',
    description: 'Resume although options or data have changed since the checkpoint',
  }),
}
