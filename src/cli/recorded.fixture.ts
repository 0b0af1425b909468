import type { TrainEvent } from '../train/events.ts'

/** The events of a short run, every type at least once. */
export const recordedRun: readonly TrainEvent[] = [
  { type: 'status', message: 'reading m' },
  {
    type: 'data',
    train: {
      path: 't.jsonl',
      examples: 800,
      tokens: 40000,
      labelTokens: 9000,
      truncated: 3,
      dropped: 1,
      skippedLines: 0,
    },
    valid: {
      path: 'v.jsonl',
      examples: 80,
      tokens: 4000,
      labelTokens: 900,
      truncated: 0,
      dropped: 0,
      skippedLines: 0,
    },
  },
  {
    type: 'plan',
    modelType: 'llama',
    parameters: 134_515_008,
    trainableParameters: 921_600,
    steps: 3,
    threads: 2,
    activations: 'keep',
    quantization: undefined,
    expandWeights: true,
    headRows: 512,
    streamed: undefined,
    memory: {
      expected: 1_730_000_000,
      items: [
        { what: 'base weights', bytes: 540_000_000 },
        { what: 'activations', bytes: 640_000_000 },
      ],
      bound: undefined,
      smaller: ['"activations": recompute', 'a smaller maxLength'],
    },
  },
  sample('before', 'I do not know what a ticket is. I do not know what a ticket is.'),
  step(1, 2.5, 8),
  step(2, 2, 4),
  { type: 'log', step: 2, epoch: 2 / 3, loss: 2.25, learningRate: 1e-4, gradNorm: 0.53 },
  {
    type: 'eval',
    step: 2,
    epoch: 2 / 3,
    seconds: 1.2,
    best: true,
    loss: 1.9,
    perplexity: 6.6859,
    tokenAccuracy: 0.615,
    labelTokens: 900,
    examples: 80,
  },
  { type: 'warning', message: 'loss rose' },
  {
    type: 'spike',
    step: 3,
    epoch: 1,
    kind: 'loss',
    value: 7.5,
    expected: { median: 2, limit: 2.75 },
    loss: 7.5,
    gradNorm: 12,
    lines: [3, 14, 15],
    action: 'apply',
    remedy: 'Look at these lines.',
  },
  {
    type: 'overfitting',
    step: 3,
    epoch: 1,
    evalLoss: 2.5,
    trainLoss: 1,
    best: { step: 2, epoch: 2 / 3, evalLoss: 1.9, trainLoss: 2 },
    remedy: 'Fewer epochs.',
  },
  step(3, 1.5, 0),
  { type: 'save', step: 3, path: 'out/checkpoint-3' },
  // A model may print anything; the escape sequence must not reach the terminal.
  sample('after', ' billing\n\u{1b}[31m'),
  {
    type: 'done',
    steps: 3,
    trainLoss: 2,
    outputDir: 'out',
    seconds: 12.3,
    peakMemory: 1.31e9,
    best: { step: 2, loss: 1.9 },
  },
]

function step(index: number, loss: number, secondsLeft: number): TrainEvent {
  return {
    type: 'step',
    step: index,
    steps: 3,
    epoch: index / 3,
    loss,
    learningRate: 1e-4,
    gradNorm: 0.5,
    tokens: 1024,
    labelTokens: 200,
    seconds: 1.26,
    tokensPerSecond: 812,
    bytesRead: 0,
    memory: 1.2e9,
    secondsLeft,
  }
}

function sample(when: 'before' | 'after', completion: string): TrainEvent {
  return { type: 'sample', when, prompt: 'Ticket: the invoice is wrong\nCategory:', completion, expected: ' billing' }
}
