import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openSession } from '../../session/session.ts'
import { fromHub } from '../../hub/resolve.ts'
import { baseFor } from '../../runs/adapter-base.ts'
import { checks, type Check } from './checks.ts'
import { SelftestContext, type SelftestConfig } from './context.ts'
import { examplesPerStep, writeData } from './data.ts'
import { LowrankError, messageOf } from '../../util/errors.ts'
import { status, type StatusEvent, type TaskContext } from '../../util/task.ts'

/** What one check found. */
export interface CheckResult {
  readonly name: string
  readonly result: 'passed' | 'failed' | 'skipped'
  /** Why there is no value: the check was skipped, or ended in an error. */
  readonly why?: string
  /** What `value` is. */
  readonly figure: string
  /** What was found, and the most that passes. */
  readonly value: number | undefined
  readonly allowed: number | undefined
  readonly seconds: number
}

export interface SelftestResult {
  /** Whether no check failed. */
  readonly passed: boolean
  readonly checks: readonly CheckResult[]
  readonly seconds: number
}

/**
 * Tries on the user's own model and machine what is promised of all: gradients against differences of losses, and what must make no
 * difference. The name of each check is reported before it runs.
 *
 * @throws LowrankError `model`, `adapter`, `data`, `config`: the input was refused; `cancelled`.
 */
export async function* runSelftest(
  given: SelftestConfig,
  { cancelled }: TaskContext,
): AsyncGenerator<StatusEvent, SelftestResult> {
  const begun = performance.now()
  const { config } = yield* fromHub(given, { cancelled })
  const { model, adapter, threads, maxLength } = config
  const quantization = yield* baseFor(config)
  await using session = await openSession({ model, adapter, threads, quantization, cancelled })
  const quantized = session.decoder.quantization !== undefined
  const folder = await mkdtemp(join(tmpdir(), 'lowrank-selftest-'))
  try {
    const data = join(folder, 'data.jsonl')
    await writeData(data, config.data)
    const { examples: read } = await session.read([{ path: data, weight: 1 }], { maxLength, shape: 'pairs' })
    session.tokenizer.close()
    // A short file serves as well: what must make no difference makes none for examples that occur twice.
    const examples = Array.from({ length: examplesPerStep }, (_, i) => read.at(i % read.length)!)
    const context = new SelftestContext({ config, quantization, folder, data, examples, cancelled })
    const results: CheckResult[] = []
    try {
      for (const [i, check] of checks.entries()) {
        if (cancelled()) throw new LowrankError('cancelled', `cancelled after ${i} of ${checks.length} checks`)
        yield status(`${i + 1}/${checks.length} ${check.name}`)
        results.push(await resultOf(check, context, quantized))
      }
    } finally {
      await context.close()
    }
    const seconds = (performance.now() - begun) / 1000
    return { passed: results.every(({ result }) => result !== 'failed'), checks: results, seconds }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function resultOf(check: Check, context: SelftestContext, quantized: boolean): Promise<CheckResult> {
  const { name, figure } = check
  const start = performance.now()
  const skipped = (why: string): CheckResult => {
    const seconds = (performance.now() - start) / 1000
    return { name, result: 'skipped', why, figure, value: undefined, allowed: undefined, seconds }
  }
  if (quantized && check.trainsBase === true) return skipped('the base is quantized, and cannot be trained')
  try {
    const { value, allowed } = await check.run(context)
    const seconds = (performance.now() - start) / 1000
    return { name, result: value <= allowed ? 'passed' : 'failed', figure, value, allowed, seconds }
  } catch (error) {
    const code = error instanceof LowrankError ? error.code : 'internal'
    if (code === 'cancelled') throw error
    if (code === 'memory') return skipped(messageOf(error))
    // What cannot even be computed is a finding too.
    return { ...skipped(messageOf(error)), result: 'failed' }
  }
}
