import { readSelftestConfig } from '../config/index.ts'
import type { CheckResult, SelftestResult } from '../tasks/selftest/selftest.ts'
import { LowrankError } from '../util/errors.ts'
import { duration, plural, table } from './format.ts'
import type { Invocation } from './io.ts'

/** `lowrank selftest`: tries what is promised of training on a model. A check that fails is an error, after the table. */
export async function selftest({ sources, json, io, signal, loadApi }: Invocation): Promise<void> {
  const config = readSelftestConfig(sources)
  const api = await loadApi()
  const onStatus = (message: string): unknown => io.stderr.write(`${message}\n`)
  const result = await api.selftest(config, { signal, onStatus })
  io.stdout.write(json ? `${JSON.stringify(result)}\n` : `${selftestLines(result).join('\n')}\n`)
  const failed = result.checks.filter((check) => check.result === 'failed')
  if (failed.length === 0) return
  throw new LowrankError(
    'selftest',
    `${failed.length} of ${plural(result.checks.length, 'check')} failed: ${failed.map(({ name }) => name).join('; ')}`,
    { hint: 'What is trained on this model here cannot be trusted; please report it with the table.' },
  )
}

/** The table of a self-test, and a line that sums it up. */
export function selftestLines({ checks, seconds }: SelftestResult): string[] {
  const rows = checks.map(({ name, result, figure, value, allowed, why, seconds: took }) => [
    name,
    result,
    value === undefined || allowed === undefined ? (why ?? '') : figureText(value),
    allowed === undefined ? '' : figureText(allowed),
    value === undefined ? '' : figure,
    duration(took),
  ])
  const count = (result: CheckResult['result']): number => checks.filter((check) => check.result === result).length
  const counts = (['passed', 'failed', 'skipped'] as const).map((result) => `${count(result)} ${result}`)
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
