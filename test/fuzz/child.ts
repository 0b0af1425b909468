/* The process in which cases are run: `fuzz.ts` sends seeds, and ends it when one does not come back. */
import { apiTasks, directTasks } from './calls.ts'
import { runCase } from './case.ts'

const [seeds = '', work = '', through] = process.argv.slice(2)
const tasks = through === 'direct' ? directTasks : apiTasks
const baselines = new Map<string, string>()

process.on('message', (seed: number) => {
  const send = (message: unknown): void => void process.send?.(message)
  void runCase({ seed, seeds, work, tasks, baselines, onStart: (plan) => send({ plan }) }).then(
    (outcome) => send({ outcome }),
    (error: unknown) => send({ broken: error instanceof Error ? error.stack : String(error) }),
  )
})
