import { count, option, size, sizeMeta } from '../fields.ts'

export const machine = {
  threads: option(count.max(1024).optional(), {
    group: 'Machine',
    description: 'Threads that compute',
    resume: 'free',
    unset: 'number of cores',
  }),
  memory: option(size.optional(), {
    group: 'Machine',
    description: 'Most memory the process may take; the run is planned to fit',
    resume: 'free',
    ...sizeMeta,
    unset: 'no bound',
  }),
}
