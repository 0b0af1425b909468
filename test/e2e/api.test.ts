import { join } from 'node:path'
import {
  evaluate,
  finetune,
  loadModel,
  LowrankError,
  type DatasetSummary,
  type EvalResult,
  type TrainConfigInput,
  type TrainEvent,
} from 'lowrank'
import { beforeAll, describe, expect, expectTypeOf, test } from 'vitest'
import {
  all,
  figures,
  last,
  makeTinyModel,
  only,
  quickstart,
  readJson,
  readMetrics,
  temporaryFolder,
  writeData,
} from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder)
const outputDir = join(folder, 'out')
let config: TrainConfigInput & { readonly valid: string }
let events: TrainEvent[]
let ticks = 0

beforeAll(async () => {
  const model = await makeTinyModel(folder)
  const watch = { loggingSteps: 2, evalSteps: 2, saveSteps: 2, samples: 2, loadBestModelAtEnd: true } as const
  config = { model, ...data, outputDir, maxSteps: 4, perDeviceTrainBatchSize: 4, maxLength: 96, ...watch }
  const timer = setInterval(() => ticks++, 5)
  events = await all(finetune(config))
  clearInterval(timer)
})

describe('the events of a run', () => {
  test('come in order, done last', () => {
    expect(events.map((event) => event.type).join(' ')).toBe(
      'status data plan status sample sample ' +
        'step step log eval save step step log eval save ' +
        'save sample sample done',
    )
  })

  test('have the shape that their types promise', () => {
    const number: unknown = expect.any(Number)
    const summary = {
      shape: 'pairs',
      findings: [],
      examples: 16,
      tokens: number,
      labelTokens: number,
      truncated: 0,
      dropped: 0,
      skippedLines: 0,
    }
    expect(only(events, 'data')).toEqual([
      {
        type: 'data',
        train: { ...summary, path: data.train },
        valid: { ...summary, path: data.valid, examples: 8 },
      },
    ])
    expect(only(events, 'plan')).toEqual([
      {
        type: 'plan',
        modelType: 'llama',
        // Embedding, two blocks (q, k, v, o and their biases, gate, up, down and theirs, two norms), a norm, and the adapter.
        parameters: 2496 * 32 + 2 * (3072 + 96 + 3 * 2048 + 160 + 2 * 32) + 32 + 2 * (8 * 64 + 8 * 48),
        trainableParameters: 2 * (8 * 64 + 8 * 48),
        steps: 4,
        threads: number,
        activations: 'keep',
        quantization: undefined,
        expandWeights: true,
        headRows: 512,
        streamed: undefined,
        matmulPrecision: 'highest',
        products: expect.stringContaining('narrow') as string,
        memory: {
          expected: number,
          items: expect.any(Array) as unknown,
          bound: undefined,
          smaller: expect.any(Array) as unknown,
        },
      },
    ])
    const steps = only(events, 'step')
    expect(steps.map(({ step, steps: all, epoch }) => [step, all, epoch])).toEqual([
      [1, 4, 0.25],
      [2, 4, 0.5],
      [3, 4, 0.75],
      [4, 4, 1],
    ])
    // The learning rate falls along a line from its default.
    steps.forEach(({ learningRate }, i) => expect(learningRate).toBeCloseTo(5e-5 * (1 - i / 4), 12))
    expect(steps.reduce((total, step) => total + step.labelTokens, 0)).toBe(only(events, 'data')[0]?.train.labelTokens)
    expect(steps.reduce((total, step) => total + step.realTokens, 0)).toBe(only(events, 'data')[0]?.train.tokens)
    for (const step of steps) {
      const { loss, gradNorm, tokens, realTokens, labelTokens, seconds, tokensPerSecond, memory, secondsLeft } = step
      for (const value of [loss, gradNorm, seconds, memory]) expect(value).toBeGreaterThan(0)
      expect(realTokens).toBeGreaterThan(labelTokens)
      expect(tokens).toBeGreaterThanOrEqual(realTokens)
      expect(step.paddingShare).toBe(1 - realTokens / tokens)
      expect(tokensPerSecond).toBeCloseTo(tokens / seconds, 6)
      expect(secondsLeft).toBeGreaterThanOrEqual(0)
    }
    expect(last(steps).secondsLeft).toBe(0)
    const losses = steps.map(({ loss }) => loss)
    expect(only(events, 'log').map(({ step, loss }) => [step, loss])).toEqual([
      [2, (losses[0]! + losses[1]!) / 2],
      [4, (losses[2]! + losses[3]!) / 2],
    ])
    for (const event of only(events, 'eval')) {
      expect(event).toMatchObject({ labelTokens: only(events, 'data')[0]?.valid?.labelTokens, examples: 8 })
      expect(event.perplexity).toBe(Math.exp(event.loss))
      expect(event.tokenAccuracy).toBeGreaterThanOrEqual(0)
      expect(event.tokenAccuracy).toBeLessThanOrEqual(1)
    }
    expect(only(events, 'save').map(({ step, path }) => [step, path])).toEqual([
      [2, join(outputDir, 'checkpoint-2')],
      [4, join(outputDir, 'checkpoint-4')],
      [4, outputDir],
    ])
    const samples = only(events, 'sample')
    expect(samples.map(({ when }) => when)).toEqual(['before', 'before', 'after', 'after'])
    const [first] = samples
    expect(first?.prompt).toMatch(/^Ticket from /)
    expect(first?.expected).toMatch(/^category: /)
    const best = only(events, 'eval').reduce((a, b) => (b.loss < a.loss ? b : a))
    const sum = (of: 'tokens' | 'realTokens' | 'labelTokens'): number =>
      steps.reduce((total, step) => total + step[of], 0)
    expect(last(events)).toEqual({
      type: 'done',
      steps: 4,
      trainLoss: losses.reduce((total, loss) => total + loss, 0) / 4,
      tokens: sum('tokens'),
      realTokens: sum('realTokens'),
      labelTokens: sum('labelTokens'),
      paddingShare: 1 - sum('realTokens') / sum('tokens'),
      outputDir,
      seconds: number,
      peakMemory: number,
      best: { step: best.step, loss: best.loss },
    })
  })

  test('are reported by type, and are what metrics.jsonl has', () => {
    expectTypeOf<Extract<TrainEvent, { type: 'eval' }>>().toExtend<EvalResult>()
    expectTypeOf<Extract<TrainEvent, { type: 'data' }>['valid']>().toEqualTypeOf<DatasetSummary | undefined>()
    expectTypeOf(finetune(config)).toExtend<AsyncIterable<TrainEvent>>()
    // As a JSON file has them: without what is undefined.
    const written = events.map((event) => ({ ...event, time: expect.any(String) as unknown }))
    expect(readMetrics(outputDir)).toEqual(written)
    expect(readJson(join(outputDir, 'run.json'))).toMatchObject({ status: 'done' })
  })

  test('leave the event loop free', () => {
    expect(ticks).toBeGreaterThan(20)
  })
})

test('evaluate finds what the best evaluation of the run found', async () => {
  const { model, valid } = config
  const best = only(events, 'eval').reduce((a, b) => (b.loss < a.loss ? b : a))
  expect(figures(await evaluate({ model, adapter: outputDir, data: valid, maxLength: 96 }))).toEqual(figures(best))
})

describe('a loaded model', () => {
  const prompt = 'Ticket from Zoe Jensen\nHello. I have moved to Denver.\n'

  test('generates, again and again, until it is closed', async () => {
    const model = await loadModel({ model: quickstart })
    const first = await model.generate(prompt, { maxNewTokens: 8 })
    expect(first).not.toBe('')
    // Calls at the same time are answered one after another.
    const longer = model.generate(prompt, { maxNewTokens: 12 })
    const [second, third] = await Promise.all([model.generate(prompt, { maxNewTokens: 8 }), longer])
    expect(second).toBe(first)
    expect(third.startsWith(first)).toBe(true)
    await model.close()
    await expect(model.generate(prompt)).rejects.toMatchObject({ code: 'usage', message: 'this model is closed' })
    await model.close()
  })

  test('generates what its adapter says', async () => {
    const sample = last(only(events, 'sample'))
    const model = await loadModel({ model: config.model, adapter: outputDir })
    expect(await model.generate(sample.prompt, { maxNewTokens: 200 })).toContain(sample.completion)
    await model.close()
  })
})

describe('errors', () => {
  const failure = async (promise: Promise<unknown>): Promise<LowrankError> => {
    const error = await promise.then(
      () => undefined,
      (reason: unknown) => reason,
    )
    expect(error).toBeInstanceOf(LowrankError)
    return error as LowrankError
  }

  test('of the configuration come at once, before a thread is started', async () => {
    const wrong = { ...config, loraAlfa: 16 } as TrainConfigInput
    const { code, message } = await failure(all(finetune(wrong)))
    expect(code).toBe('config')
    expect(message).toContain('loraAlfa: unknown option. Did you mean "loraAlpha"?')
  })

  test('cross the thread with code, message, hint and stack', async () => {
    const missing = join(folder, 'nowhere')
    const calls = [
      () => all(finetune({ ...config, model: missing })),
      () => evaluate({ model: missing, data: data.valid }),
      () => loadModel({ model: missing }),
    ]
    for (const call of calls) {
      const { code, message, hint, stack } = await failure(call())
      expect(code).toBe('model')
      expect(message).toContain(missing)
      expect(hint).toContain('config.json')
      // Where it happened, not where it arrived.
      expect(stack).toContain('at notAFolder (')
    }
    const { code, message } = await failure(evaluate({ model: quickstart, data: join(folder, 'none.jsonl') }))
    expect(code).toBe('data')
    expect(message).toContain('none.jsonl')
  })
})
