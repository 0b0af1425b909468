import { count, option } from '../config/fields.ts'
import type { TrainConfig } from '../config/index.ts'

/* What `compare` and `search` have in common. */

export const workers = option(count.max(64).default(1), {
  group: 'Machine',
  description: 'Trainings at once, each in a process with its share of threads and memory',
})

/** What is wrong with the options of an experiment, beyond those of a training run. */
export function experimentProblems(
  config: Partial<Omit<TrainConfig, 'seeds'> & { readonly seeds: number }>,
  nameOf: (key: string) => string,
): string[] {
  const problems: string[] = []
  const { valid, validSplit, seeds = 1, resume, resumeFrom, adapter } = config
  if (valid === undefined && validSplit === undefined) {
    problems.push(
      `${nameOf('valid')}: missing. What is trained is compared by its loss on data that it has not seen: name some, or ask for a share ` +
        `of the training data with ${nameOf('validSplit')}, as 10%`,
    )
  }
  if (validSplit !== undefined && seeds > 1) {
    problems.push(
      `${nameOf('validSplit')}: is chosen by the seed, so each of ${seeds} seeds would be evaluated on other examples. ` +
        'Make two files first (lowrank data split), and name them',
    )
  }
  if (adapter !== undefined) {
    problems.push(`${nameOf('adapter')}: has no meaning here: methods and ranks begin with the base model`)
  }
  if (resume === true || resumeFrom !== undefined) {
    const key = resume === true ? 'resume' : 'resumeFrom'
    problems.push(`${nameOf(key)}: has no meaning here: what was begun in output-dir goes on by itself`)
  }
  return problems
}
