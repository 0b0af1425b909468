import type { EvalConfigInput, QuantizeConfigInput, TrainConfigInput } from '../config/index.ts'
import type { TrainEvent } from '../train/events.ts'
import type { Api, Io } from './io.ts'
import { recordedRun } from './recorded.fixture.ts'
import { run } from './run.ts'

export const trainFlags = ['--model', 'm', '--train', 't.jsonl', '--output-dir', 'out']

export interface Outcome {
  code: number
  stdout: string
  stderr: string
  trainConfigs: TrainConfigInput[]
  evalConfigs: EvalConfigInput[]
  quantizeConfigs: QuantizeConfigInput[]
}

/** Runs a command line against a library that replays a recorded run. */
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
    stdout: { write: (text) => (outcome.stdout += text) },
    stderr: { write: (text) => (outcome.stderr += text) },
    env: options.env ?? {},
    onInterrupt: (listener) => {
      options.onStart?.(() => listener({ code: 130, byHand: true }))
      return () => undefined
    },
    exit: (code) => options.exits?.push(code),
  }
  const api: Api = {
    finetune: (config, { signal } = {}) => {
      outcome.trainConfigs.push(config)
      return options.finetune?.(signal) ?? replay()
    },
    evaluate: (config) => {
      outcome.evalConfigs.push(config)
      const counts = { examples: 40, tokens: 5000, labelTokens: 1200, truncated: 3, dropped: 1, skippedLines: 2 }
      const data = { path: 'd', ...counts }
      return Promise.resolve({
        loss: 0.5,
        perplexity: 1.6487,
        tokenAccuracy: 0.875,
        labelTokens: 1200,
        examples: 40,
        data,
      })
    },
    replay: () => Promise.reject(new Error('no run to replay')),
    selftest: () => {
      const check = { figure: 'numbers that differ', allowed: 0, seconds: 1.5 }
      const checks = [0, 3].map((value) => ({
        ...check,
        name: `check ${value}`,
        value,
        result: value === 0 ? ('passed' as const) : ('failed' as const),
      }))
      return Promise.resolve({ passed: false, seconds: 3, checks })
    },
    quantize: (config) => {
      outcome.quantizeConfigs.push(config)
      return Promise.resolve({ outputDir: config.output, bytes: 123_456_789, tensors: 1200, seconds: 4.2 })
    },
  }
  outcome.code = await run(args, io, () => Promise.resolve(api))
  return outcome
}

async function* replay(): AsyncGenerator<TrainEvent> {
  for (const event of recordedRun) yield await Promise.resolve(event)
}
