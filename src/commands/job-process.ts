/* The entry file of a process that runs one job, whose file is its argument. */
import type { Progress } from '../jobs/pool.ts'
import { runJob } from '../jobs/run.ts'
import { inThread } from './compute.ts'

const controller = new AbortController()
const end = (): void => controller.abort()
// Who started it is gone, or wants it to end; a Ctrl-C of the terminal reaches both.
process.on('message', end).on('disconnect', end)
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, end)

await runJob(process.argv[2]!, {
  compute: inThread,
  signal: controller.signal,
  onProgress: (text) => {
    if (process.connected) process.send?.({ text } satisfies Progress)
  },
})
if (process.connected) process.disconnect()
