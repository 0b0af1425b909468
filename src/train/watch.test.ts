import { describe, expect, test } from 'vitest'
import type { WatchConfig } from './config.ts'
import { hasStalled, overfittingSince, type EarlyStoppingState, type OverfittingState } from './watch-evaluations.ts'
import { judgeEvaluation, judgeStep, spikeError, startWatch, type Verdict, type Watch } from './watch.ts'

const defaults: WatchConfig = {
  onSpike: 'warn',
  earlyStoppingPatience: undefined,
  earlyStoppingThreshold: 0,
  loadBestModelAtEnd: false,
  learningRate: 1e-3,
  maxGradNorm: 1,
  loraDropout: 0,
  method: 'lora',
  train: 't.jsonl',
  outputDir: 'out',
}
const fp4 = { kind: '4bit', quantType: 'fp4', doubleQuant: false, blockSize: 64 } as const
const nf4 = { ...fp4, quantType: 'nf4' } as const

function watchWith(config: Partial<WatchConfig>, base?: Watch['base']): Watch {
  return { config: { ...defaults, ...config }, base, state: startWatch() }
}

/** What becomes of steps of these losses, after 30 steps of loss 2. */
function judged(watch: Watch, losses: readonly number[]): Verdict[] {
  const all = [...Array<number>(30).fill(2), ...losses]
  const verdicts = all.map((loss, index) =>
    judgeStep(watch, { step: index + 1, epoch: 0.5, loss, gradNorm: 1, labelTokens: 100, lines: [9, 3, 7] }),
  )
  return verdicts.slice(30)
}

const actions = (verdicts: readonly Verdict[]): string[] =>
  verdicts.map(({ action, spike }) => `${action}${spike === undefined ? '' : ' reported'}`)

describe('spikes', () => {
  test('warn: applied; reported once while the loss stays high, and again where it comes back', () => {
    expect(actions(judged(watchWith({}), [8, 8, 2, 2, 8]))).toEqual([
      'apply reported',
      'apply',
      'apply',
      'apply',
      'apply reported',
    ])
  })

  test('skip: left out and reported each time, up to five in a row', () => {
    const expected = [...Array<string>(5).fill('skip reported'), 'stop reported']
    expect(actions(judged(watchWith({ onSpike: 'skip' }), Array<number>(6).fill(NaN)))).toEqual(expected)
    expect(actions(judged(watchWith({ onSpike: 'skip' }), [NaN, NaN, NaN, NaN, NaN, 2, NaN]))).toEqual([
      ...Array<string>(5).fill('skip reported'),
      'apply',
      'skip reported',
    ])
  })

  test('stop: leaves the state as it was, so that the step can be made again', () => {
    for (const loss of [8, NaN]) {
      const watch = watchWith({ onSpike: 'stop' })
      judged(watch, [])
      const before = structuredClone(watch.state)
      const step = { step: 31, epoch: 1, loss, gradNorm: 1, labelTokens: 100, lines: [1] }
      expect(actions([judgeStep(watch, step), judgeStep(watch, step)])).toEqual(['stop reported', 'stop reported'])
      expect(watch.state).toEqual(before)
    }
  })

  test.each(['warn', 'skip', 'stop'] as const)('%s: what is no number is never applied', (onSpike) => {
    for (const values of [
      { loss: NaN },
      { loss: -Infinity },
      { gradNorm: NaN },
      { gradNorm: Infinity },
      { gradNorm: 1e19 },
    ]) {
      const watch = watchWith({ onSpike })
      const step = { step: 1, epoch: 0, loss: 2, gradNorm: 1, labelTokens: 100, lines: [1], ...values }
      const { action, spike } = judgeStep(watch, step)
      expect(action).toBe(onSpike === 'skip' ? 'skip' : 'stop')
      expect(spike?.kind).toBe('nan')
      expect(JSON.parse(JSON.stringify(watch.state))).toEqual(JSON.parse(JSON.stringify({ ...watch.state })))
      expect(JSON.stringify(watch.state)).not.toContain('null')
    }
  })

  test('the event names lines, range and remedy; so does the error', () => {
    const { spike } = judged(watchWith({ onSpike: 'stop' }, fp4), [8])[0]!
    expect(spike).toEqual({
      type: 'spike',
      step: 31,
      epoch: 0.5,
      kind: 'loss',
      value: 8,
      expected: { median: 2, limit: 2.5 },
      loss: 8,
      gradNorm: 1,
      lines: [3, 7, 9],
      action: 'stop',
      remedy: expect.stringMatching(
        /^The base is in fp4, .*nf4.* Are these lines of t\.jsonl .*replay out --step 31 .*learningRate \(now 0\.001\)/,
      ),
    })
    const error = spikeError(spike!)
    expect(error).toMatchObject({ code: 'diverged', hint: expect.stringContaining('not changed by this step') })
    expect(error.message).toBe(
      'step 31: the loss is 8.000, where at most 2.500 was expected (lines 3, 7, 9 of the training data)',
    )
    for (const base of [nf4, undefined]) {
      expect(judged(watchWith({}, base), [8])[0]?.spike?.remedy).not.toContain('fp4')
    }
  })

  test('a slow rise is reported once', () => {
    const rise = Array.from({ length: 60 }, (_, index) => 2 + index * 0.08)
    expect(actions(judged(watchWith({}), rise)).filter((action) => action !== 'apply')).toEqual(['apply reported'])
  })
})

describe('early stopping', () => {
  /** The evaluation, from 1, that ends a run; 0 where none does. */
  const stopsAt = (losses: readonly number[], patience: number, threshold = 0): number => {
    const state: EarlyStoppingState = { lowest: undefined, waited: 0 }
    return losses.findIndex((loss) => hasStalled(state, loss, { patience, threshold })) + 1
  }

  // As transformers 5.23's EarlyStoppingCallback, but for the last: there, a first loss that is NaN stays the best.
  test.each([
    [[3, 2, 1], 1, 0, 0],
    [[3, 2, 2], 1, 0, 3],
    [[3, 2, 2.5, 1.9, 2, 2.1], 2, 0, 6],
    [[3, 2, 2.5, 1.9, 2, 2.1], 3, 0, 0],
    [[3, 2.95, 2.5], 1, 0.1, 2],
    // The lowest moves with every fall, so many small ones are none.
    [[3, 2.95, 2.9, 2.85], 3, 0.1, 4],
    [[3, NaN, NaN], 2, 0, 3],
    [[NaN, 3, 2], 2, 0, 0],
  ])('%j with patience %i and threshold %f ends at %i', (losses, patience, threshold, end) => {
    expect(stopsAt(losses, patience, threshold)).toBe(end)
  })

  test('says why', () => {
    const watch = watchWith({ earlyStoppingPatience: 1, earlyStoppingThreshold: 0.1 })
    expect(judgeEvaluation(watch, { step: 1, epoch: 1, loss: 2 }).stop).toBeUndefined()
    expect(judgeEvaluation(watch, { step: 2, epoch: 2, loss: 1.95 }).stop).toBe(
      'the evaluation loss did not fall by more than 0.1 below the lowest before; ' +
        'the weights are those of the last step, since loadBestModelAtEnd is not set',
    )
    const never = watchWith({})
    for (let step = 0; step < 9; step++) {
      expect(judgeEvaluation(never, { step, epoch: 1, loss: 2 }).stop).toBeUndefined()
    }
  })
})

describe('overfitting', () => {
  /** The evaluations, from 1, at which it is reported. */
  const toldAt = (pairs: readonly (readonly [evalLoss: number, trainLoss: number])[]): number[] => {
    const state: OverfittingState = { best: undefined, last: undefined, rises: 0, told: false }
    return pairs.flatMap(([evalLoss, trainLoss], step) =>
      overfittingSince(state, { step, epoch: step, evalLoss, trainLoss }) === undefined ? [] : [step + 1],
    )
  }

  test.each([
    [
      'both fall',
      [
        [3, 3],
        [2, 2],
        [1.5, 1],
        [1.4, 0.5],
      ],
      [],
    ],
    [
      'they part',
      [
        [3, 3],
        [2, 2],
        [2.1, 1.5],
        [2.2, 1],
        [2.4, 0.5],
        [3, 0.1],
      ],
      [4],
    ],
    [
      'one evaluation is higher',
      [
        [3, 3],
        [2, 2],
        [2.3, 1.5],
        [1.9, 1],
        [2.2, 0.5],
      ],
      [],
    ],
    [
      'it rises by less than 2 %',
      [
        [3, 3],
        [2, 2],
        [2.01, 1.5],
        [2.02, 1],
      ],
      [],
    ],
    [
      'both rise: the run diverges',
      [
        [3, 3],
        [2, 2],
        [2.5, 2.5],
        [3, 3],
      ],
      [],
    ],
    [
      'it goes up and down above the best',
      [
        [3, 3],
        [2, 2],
        [2.3, 1.5],
        [2.2, 1],
        [2.3, 0.9],
        [2.2, 0.8],
      ],
      [],
    ],
  ] as const)('%s', (_, pairs, expected) => {
    expect(toldAt(pairs)).toEqual(expected)
  })

  test('compares means of the steps that were applied since the evaluation before', () => {
    const watch = watchWith({ onSpike: 'skip' })
    judged(watch, [NaN, 4])
    judgeEvaluation(watch, { step: 32, epoch: 1, loss: 2 })
    expect(watch.state.overfitting.best).toEqual({ step: 32, epoch: 1, evalLoss: 2, trainLoss: 2 })
    expect(watch.state).toMatchObject({ trainLossSum: 0, trainSteps: 0 })
  })

  test('an evaluation before the first step has no training loss to compare with', () => {
    const watch = watchWith({})
    expect(judgeEvaluation(watch, { step: 0, epoch: 0, loss: 1 })).toEqual({ overfitting: undefined, stop: undefined })
    expect(watch.state.overfitting.best).toBeUndefined()
  })
})
