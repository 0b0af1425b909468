import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { openDecoder } from '../../src/session/decoder.ts'
import { largestMicroBatch } from '../../src/text/batches.ts'
import type { Example } from '../../src/text/example.ts'
import { parseTrainConfig } from '../../src/config/index.ts'
import { startTraining, train as trainSteps } from '../../src/train/trainer.ts'
import {
  collect,
  flags,
  last,
  lowrankHere,
  makeTinyModel,
  only,
  quickstart,
  readMetrics,
  root,
  temporaryFolder,
} from './support.ts'

// Packing, grouping by length and padding multiples through the public API, and the trial of the largest micro-batch.

const folder = temporaryFolder()
const train = join(folder, 'train.jsonl')
const valid = join(folder, 'valid.jsonl')
let model: string

/** Mostly short, some long. */
const line = (i: number): string =>
  JSON.stringify({
    prompt: `Ticket from Mary: order ${i}${' is still missing'.repeat(i % 9 === 4 ? 12 : i % 4)}.\n`,
    completion: ` category: ${['billing', 'shipping', 'refund'][i % 3]}`,
  })
const write = (path: string, count: number): void =>
  writeFileSync(path, Array.from({ length: count }, (_, i) => `${line(i)}\n`).join(''))

beforeAll(async () => {
  write(train, 40)
  write(valid, 12)
  model = await makeTinyModel(folder)
})

const run = (name: string, options: object) =>
  collect({
    model,
    train,
    valid,
    outputDir: join(folder, name),
    loraDropout: 0,
    learningRate: 1e-3,
    numTrainEpochs: 1,
    perDeviceTrainBatchSize: 4,
    gradientAccumulationSteps: 2,
    saveStrategy: 'no',
    threads: 1,
    ...options,
  })

test('packing changes no step, no loss and no schedule, and computes less', async () => {
  const plain = await run('plain', {})
  const packed = await run('packed', { packing: true })
  const [a, b] = [only(plain, 'step'), only(packed, 'step')]
  expect(
    b.map(({ step, epoch, learningRate, labelTokens, realTokens }) => [
      step,
      epoch,
      learningRate,
      labelTokens,
      realTokens,
    ]),
  ).toEqual(
    a.map(({ step, epoch, learningRate, labelTokens, realTokens }) => [
      step,
      epoch,
      learningRate,
      labelTokens,
      realTokens,
    ]),
  )
  expect(a).toHaveLength(5)
  a.forEach(({ loss, gradNorm }, i) => {
    expect(Math.abs(b[i]!.loss - loss)).toBeLessThan(1e-5)
    expect(Math.abs(b[i]!.gradNorm / gradNorm - 1)).toBeLessThan(1e-4)
  })
  const evaluations = [plain, packed].map((events) => only(events, 'eval').map(({ loss }) => loss))
  expect(Math.abs(evaluations[1]![0]! - evaluations[0]![0]!)).toBeLessThan(1e-5)
  expect(only(packed, 'eval')[0]?.examples).toBe(12)
  const [before, after] = [last(only(plain, 'done')), last(only(packed, 'done'))]
  expect(after.tokens).toBeLessThan(before.tokens)
  expect(after.paddingShare).toBeLessThan(0.12)
  expect(after.realTokens).toBe(before.realTokens)
})

test('groupByLength and padToMultipleOf', async () => {
  const plain = last(only(await run('one batch a step', { gradientAccumulationSteps: 1 }), 'done'))
  const grouped = last(
    only(
      await run('grouped', { gradientAccumulationSteps: 1, groupByLength: true, perDeviceTrainBatchSize: 4 }),
      'done',
    ),
  )
  expect(grouped.realTokens).toBe(plain.realTokens)
  expect(grouped.paddingShare).toBeLessThan(0.5 * plain.paddingShare)
  for (const packing of [true, false]) {
    const padded = await run(`multiples ${packing}`, { padToMultipleOf: 16, packing })
    for (const { tokens } of only(padded, 'step')) expect(tokens % 16).toBe(0)
  }
})

test('the command line tells computed tokens, labels and the share of padding', async () => {
  const outputDir = join(folder, 'reported')
  const { code, stdout, stderr } = await lowrankHere([
    'train',
    ...flags({ model, train, outputDir, maxSteps: 2, packing: true, saveStrategy: 'no' }),
  ])
  expect(code, stderr).toBe(0)
  const { tokens, labelTokens, paddingShare } = last(only(readMetrics(outputDir), 'done'))
  const text = `computed ${tokens.toLocaleString('en')} tokens: ${labelTokens} labels, ${(100 * paddingShare).toFixed(1)} % padding`
  expect(stdout).toContain(text)
})

test.skipIf(process.platform !== 'linux')(
  'a run that needs too much memory says so before its first step',
  async () => {
    const long = join(folder, 'long.jsonl')
    const completion = (i: number): string => ' b c'.repeat(i % 3 === 0 ? 400 : 4)
    const lines = Array.from(
      { length: 96 },
      (_, i) => `${JSON.stringify({ prompt: 'a', completion: completion(i) })}\n`,
    )
    writeFileSync(long, lines.join(''))
    const outputDir = join(folder, 'too large')
    // One of three steps is 32 examples of 512 tokens, and not the first; with activations kept it needs about 3 GB.
    const options = { model: quickstart, train: long, outputDir, maxLength: 512, perDeviceTrainBatchSize: 32, seed: 3 }
    const args = flags({ ...options, groupByLength: true, numTrainEpochs: 1, activations: 'keep' })
    const main = join(root, 'dist/cli.js')
    // Where less is left, it is the runtime's copy of a result that does not fit, for which Node.js ends the process.
    const limited = 'ulimit -v 3600000; exec "$0" "$@"'
    const child = spawn('bash', ['-c', limited, process.execPath, main, 'train', ...args])
    let stderr = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    const code = await new Promise((resolve) => child.on('close', resolve))
    expect(code, stderr).toBe(1)
    expect(stderr).toMatch(
      /error: the largest micro-batch of this run, 32 x 512 positions, was tried first and does not fit into memory: /,
    )
    expect(stderr).toMatch(/hint: What takes less: .*a smaller perDeviceTrainBatchSize/)
    expect(only(readMetrics(outputDir), 'step')).toEqual([])
  },
  120_000,
)

const example = (length: number, i: number): Example => ({
  ids: Int32Array.from({ length }, (_, t) => 10 + ((31 * i + 7 * t) % 2400)),
  labelMask: new Uint8Array(length).fill(1, 3),
  line: i + 1,
})

test('the largest micro-batch is tried first and changes no weight', async () => {
  const options = { model, train, outputDir: folder, maxSteps: 4, perDeviceTrainBatchSize: 2, loraDropout: 0.2 }
  const config = parseTrainConfig(options)
  const examples = Array.from({ length: 24 }, (_, i) => example(i % 5 === 0 ? 60 + i : 8, i))
  const weights = async (withTrial: boolean) => {
    const decoder = await openDecoder({
      model,
      training: { lora: config, init: 'pretrained', seed: 42 },
      choice: { activations: 'keep' },
    })
    const training = startTraining({ ...decoder, config, examples })
    const largest = largestMicroBatch(training.order, training.steps)
    expect(largest.step).toBeGreaterThan(0)
    const trial = withTrial ? { largest, smaller: ['less'] } : undefined
    const messages: string[] = []
    const steps: number[] = []
    for await (const event of trainSteps(training, {
      valid: undefined,
      trial,
      saveCheckpoint: () => Promise.resolve(''),
      cancelled: () => false,
    })) {
      if (event.type === 'status') messages.push(event.message)
      if (event.type === 'step') steps.push(event.loss)
    }
    const { batch, seq } = largest.size
    expect(messages).toEqual(withTrial ? [`trying the largest micro-batch first: ${batch} x ${seq} positions`] : [])
    const found = [...decoder.trainables.values()].map(({ data }) => data.slice())
    await decoder.close()
    return { steps, found }
  }
  const [without, tried] = [await weights(false), await weights(true)]
  expect(tried.steps).toHaveLength(4)
  expect(tried).toEqual(without)
})
