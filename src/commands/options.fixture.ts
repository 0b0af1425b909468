import type { OptionSet } from '../config/index.ts'
import type { EvaluationConfig } from '../tasks/evaluate.ts'
import type { MergeConfig } from '../tasks/merge-inputs.ts'
import type { PlanConfig } from '../tasks/plan.ts'
import type { QuantizeConfig } from '../tasks/quantize.ts'
import type { SelftestConfig } from '../tasks/selftest/context.ts'
import type { ReplayConfig } from '../tasks/replay.ts'
import { commands, type Command } from './table.ts'

/** A command of the table by its name. */
export function commandNamed(name: string): Command {
  const command = commands.find((one) => one.name === name)
  if (command === undefined) throw new Error(`no command ${name}`)
  return command
}

/** The options of a command, as its task takes them. */
function optionsOf<C>(name: string): OptionSet<Command['options']['schema'], C> {
  return commandNamed(name).options as OptionSet<Command['options']['schema'], C>
}

export const evalOptions = optionsOf<EvaluationConfig & { readonly method?: string }>('eval')
export const planOptions = optionsOf<PlanConfig>('plan')
export const quantizeOptions = optionsOf<QuantizeConfig>('quantize')
export const mergeOptions = optionsOf<MergeConfig>('merge')
export const selftestOptions = optionsOf<SelftestConfig>('selftest')
export const replayOptions = optionsOf<Omit<ReplayConfig, 'run'>>('replay')
