import { z } from 'zod'
import { count, option, path } from '../config/fields.ts'
import { machine } from '../config/groups/machine.ts'
import { openedModel } from '../config/groups/model.ts'
import { heldBase } from '../config/groups/quantization.ts'
import { heldRules, optionSet } from '../config/index.ts'
import type { CheckResult, SelftestResult } from '../tasks/selftest/selftest.ts'
import { table } from '../terminal/format.ts'
import { duration, plural } from '../util/format.ts'
import { LowrankError } from '../util/errors.ts'
import type { StatusOptions } from './compute.ts'
import { defineCommand } from './define.ts'

export type { CheckResult, SelftestResult }

const options = optionSet(
  z.strictObject({
    ...openedModel,
    data: option(path.optional(), {
      group: 'Model and data',
      description: 'Data to check with: the first examples of a JSONL file as for training',
      placeholder: 'FILE',
      unset: 'sentences of its own',
    }),
    maxLength: option(count.min(2).default(128), {
      group: 'Model and data',
      description: 'Longest example in tokens; longer ones lose their end',
    }),
    ...heldBase,
    threads: machine.threads,
  }),
  heldRules,
)

/** Options of `selftest` as a user passes them. */
export type SelftestConfigInput = z.input<typeof options.schema>

/**
 * Tries on the user's own model and machine that training computes what it promises: gradients against differences of losses, and what
 * must make no difference. A check that fails is a result, not an error.
 */
export const selftest: (config: SelftestConfigInput, options?: StatusOptions) => Promise<SelftestResult> =
  defineCommand({
    name: 'selftest',
    summary: 'Check on your own model and machine that training computes what it promises',
    usage: '[flags]',
    notes:
      'Gradients are compared with differences of losses; what must make no difference (accumulation, packing, memory ' +
      'choices, stopping and resuming) is checked to make none. The exit code is 1 if a check fails. Nothing is written but ' +
      'temporary files.',
    options,
    load: async () => (await import('../tasks/selftest/selftest.ts')).runSelftest,
    text: selftestLines,
    failure: ({ checks }) => {
      const failed = checks.filter((check) => check.result === 'failed')
      if (failed.length === 0) return undefined
      const names = failed.map(({ name }) => name).join('; ')
      return new LowrankError('selftest', `${failed.length} of ${plural(checks.length, 'check')} failed: ${names}`, {
        hint: 'What is trained on this model here cannot be trusted; please report it with the table.',
      })
    },
  })

/** The table of a self-test, and a line that sums it up. */
function selftestLines({ checks, seconds }: SelftestResult): string[] {
  const rows = checks.map(({ name, result, figure, value, allowed, why, seconds: took }) => [
    name,
    result,
    value === undefined || allowed === undefined ? (why ?? '') : figureText(value),
    allowed === undefined ? '' : figureText(allowed),
    value === undefined ? '' : figure,
    duration(took),
  ])
  const found = (result: CheckResult['result']): number => checks.filter((check) => check.result === result).length
  const counts = (['passed', 'failed', 'skipped'] as const).map((result) => `${found(result)} ${result}`)
  return [
    ...table(['check', 'result', 'found', 'allowed', 'what', 'time'], rows),
    '',
    `${counts.join(', ')} in ${duration(seconds)}`,
  ]
}

/** `0`, `12`, `3.1e-6`. */
function figureText(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toExponential(1)
}
