import { Readable } from 'node:stream'
import type { Compute } from '../commands/compute.ts'
import type { TrainConfig } from '../config/index.ts'
import type { EvaluationConfig } from '../tasks/evaluate.ts'
import type { QuantizeConfig, QuantizeResult } from '../tasks/quantize.ts'
import type { SelftestResult } from '../tasks/selftest/selftest.ts'
import { recordedRun } from '../terminal/recorded.fixture.ts'
import type { EvaluationResult, TrainEvent } from '../train/events.ts'
import type { Io } from './io.ts'
import { run } from './run.ts'

export const trainFlags = ['--model', 'm', '--train', 't.jsonl', '--output-dir', 'out']

export interface Outcome {
  code: number
  stdout: string
  stderr: string
  trainConfigs: TrainConfig[]
  evalConfigs: EvaluationConfig[]
  quantizeConfigs: QuantizeConfig[]
}

/** Runs a command line against tasks that replay what they have recorded. */
export async function lowrank(
  args: string[],
  options: {
    env?: Record<string, string>
    finetune?: (signal: AbortSignal | undefined) => AsyncGenerator<TrainEvent>
    onStart?: (interrupt: () => void) => void
    exits?: number[]
  } = {},
): Promise<Outcome> {
  const outcome: Outcome = { code: -1, stdout: '', stderr: '', trainConfigs: [], evalConfigs: [], quantizeConfigs: [] }
  const io: Io = {
    stdin: Readable.from([]),
    stdout: { write: (text) => (outcome.stdout += text) },
    stderr: { write: (text) => (outcome.stderr += text) },
    env: options.env ?? {},
    onInterrupt: (listener) => {
      options.onStart?.(() => listener({ code: 130, byHand: true }))
      return () => undefined
    },
    exit: (code) => options.exits?.push(code),
  }
  async function* compute(task: string, config: unknown, { signal }: { readonly signal?: AbortSignal }) {
    switch (task) {
      case 'train':
        outcome.trainConfigs.push(config as TrainConfig)
        return yield* options.finetune?.(signal) ?? replay()
      case 'eval':
        outcome.evalConfigs.push(config as EvaluationConfig)
        return evaluation
      case 'quantize':
        outcome.quantizeConfigs.push(config as QuantizeConfig)
        return quantized(config as QuantizeConfig)
      case 'selftest':
        return tested
      default:
        throw new Error(`nothing is recorded of ${task}`)
    }
  }
  outcome.code = await run(args, io, compute as Compute)
  return outcome
}

async function* replay(): AsyncGenerator<TrainEvent> {
  for (const event of recordedRun) yield await Promise.resolve(event)
}

const counts = {
  shape: 'pairs',
  findings: [],
  examples: 40,
  tokens: 5000,
  labelTokens: 1200,
  truncated: 3,
  dropped: 1,
  skippedLines: 2,
}
const evaluation: EvaluationResult = {
  loss: 0.5,
  perplexity: 1.6487,
  tokenAccuracy: 0.875,
  labelTokens: 1200,
  examples: 40,
  data: { path: 'd', ...counts },
}

const quantized = ({ output }: QuantizeConfig): QuantizeResult => {
  return { outputDir: output, bytes: 123_456_789, tensors: 1200, seconds: 4.2 }
}

const check = { figure: 'numbers that differ', allowed: 0, seconds: 1.5 }
const tested: SelftestResult = {
  passed: false,
  seconds: 3,
  checks: [
    { ...check, name: 'check 0', value: 0, result: 'passed' },
    { ...check, name: 'check 3', value: 3, result: 'failed' },
  ],
}
