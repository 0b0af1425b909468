/* The entry file of the thread that computes. */
import { serve } from '../thread/serve.ts'
import { internalError } from '../util/errors.ts'
import { commands, type Command } from './table.ts'

/** Tasks that are no commands: those of `loadModel`, and what a job measures. */
const others: Readonly<Record<string, Command['load']>> = {
  'model open': async () => (await import('../tasks/model.ts')).open as AnyTask,
  'model adapter': async () => (await import('../tasks/model.ts')).adapter as AnyTask,
  'model embed': async () => (await import('../tasks/model.ts')).embed as AnyTask,
  'model close': async () => (await import('../tasks/model.ts')).close as AnyTask,
  'model generate': async () => (await import('../tasks/model.ts')).generate as AnyTask,
  'job measure': async () => (await import('../tasks/measure-run.ts')).runMeasure as AnyTask,
}

type AnyTask = Awaited<ReturnType<NonNullable<Command['load']>>>

serve(async (name) => {
  const load = commands.find((command) => command.name === name)?.load ?? others[name]
  if (load === undefined) throw internalError(`no task ${name}`)
  return load()
})
