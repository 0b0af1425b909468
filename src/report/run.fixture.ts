import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseTrainConfig } from '../config/index.ts'

export interface MadeRun {
  readonly steps: number
  readonly losses?: readonly (number | null)[]
  readonly evalEvery?: number
  readonly samples?: number
  readonly completion?: string
  readonly message?: string
  readonly status?: 'running' | 'done' | 'failed'
  readonly startedAt?: string
  readonly config?: object
  readonly trainHash?: string
}

/** Writes the files of a run as training leaves them, with figures made up; returns the folder. */
export function makeRun(folder: string, made: MadeRun): string {
  const { steps, losses, evalEvery = steps, samples = 2, completion = ' billing', message } = made
  const { status = 'done', startedAt = '2026-01-02T03:04:05.000Z', config = {}, trainHash = 'abc' } = made
  mkdirSync(folder, { recursive: true })
  const dataset = {
    path: 't.jsonl',
    examples: 80,
    tokens: 9000,
    labelTokens: 900,
    truncated: 1,
    dropped: 0,
    skippedLines: 0,
  }
  const chosen = { model: 'models/m', train: 't.jsonl', valid: 'v.jsonl', outputDir: 'out', samples: 2 }
  const ended = { seconds: 321, peakMemory: 1.5e9 }
  const record = {
    config: { ...parseTrainConfig(chosen), ...config },
    versions: { lowrank: '0.1.0', node: 'v20.20.2' },
    hashes: { model: 'def', train: trainHash },
    data: dataset,
    startedAt,
    status,
    ...(status === 'running' ? {} : ended),
    ...(status === 'failed' ? { result: 'LowrankError: it failed' } : {}),
  }
  writeFileSync(join(folder, 'run.json'), JSON.stringify(record))

  const lossAt = (step: number): number | null =>
    losses === undefined ? 1 + 7 * Math.exp((-4 * step) / steps) + 0.3 * Math.sin(step * 12.9898) : losses[step - 1]!
  const lines: object[] = [
    { type: 'data', train: dataset, valid: { ...dataset, path: 'v.jsonl', examples: 8 } },
    {
      type: 'plan',
      modelType: 'llama',
      parameters: 2_400_000,
      trainableParameters: 30_000,
      steps,
      threads: 2,
      activations: 'keep',
      expandWeights: true,
      headRows: 512,
      memory: { expected: 1.6e9, items: [{ what: 'base weights', bytes: 5e8 }], smaller: [] },
    },
  ]
  const sample = (when: 'before' | 'after', index: number): void => {
    const prompt = `Ticket ${index}: the invoice is wrong\nCategory:`
    lines.push({
      type: 'sample',
      when,
      prompt,
      completion: when === 'after' ? completion : 'no idea',
      expected: ' billing',
    })
  }
  for (let index = 0; index < samples; index++) sample('before', index)
  if (message !== undefined) lines.push({ type: 'warning', message })
  for (let step = 1; step <= steps; step++) {
    const epoch = (3 * step) / steps
    lines.push({
      type: 'step',
      step,
      steps,
      epoch,
      loss: lossAt(step),
      learningRate: 1e-3 * (1 - step / steps),
      gradNorm: 1 + Math.abs(Math.cos(step * 78.233)),
      tokens: 1000,
      realTokens: 900,
      paddingShare: 0.1,
      labelTokens: 200,
      seconds: 1.25,
      tokensPerSecond: 800 + 20 * Math.sin(step),
      bytesRead: 0,
      memory: 1e9 + 3e8 * Math.min(1, (3 * step) / steps),
      secondsLeft: steps - step,
    })
    if (step % evalEvery === 0) {
      const loss = 1.2 + 7 * Math.exp((-4 * step) / steps)
      const figures = { loss, perplexity: Math.exp(loss), tokenAccuracy: 1 / loss, labelTokens: 900, examples: 8 }
      lines.push({ type: 'eval', step, epoch, seconds: 1, best: true, ...figures })
    }
  }
  if (status === 'failed' && steps > 0) {
    lines.push({ type: 'warning', message: 'something is doubtful' })
    lines.push({
      type: 'spike',
      step: 2,
      epoch: 1,
      kind: 'nan',
      value: null,
      loss: null,
      gradNorm: 1,
      lines: [3, 9],
      action: 'skip',
      remedy: 'Lower the rate.',
    })
    lines.push({
      type: 'overfitting',
      step: 3,
      epoch: 2,
      evalLoss: 2,
      trainLoss: 1,
      best: { step: 2, epoch: 1, evalLoss: 1.5, trainLoss: 1.4 },
      remedy: 'Stop.',
    })
  }
  if (status === 'done') {
    for (let index = 0; index < samples; index++) sample('after', index)
    lines.push({ type: 'done', steps, trainLoss: 2, outputDir: folder, ...ended })
  }
  const text = lines.map((line) => `${JSON.stringify({ time: startedAt, ...line })}\n`).join('')
  writeFileSync(join(folder, 'metrics.jsonl'), text)
  return folder
}
