import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { evaluate, finetune, LowrankError, type TrainEvent } from 'lowrank'
import { beforeAll, expect, test } from 'vitest'
import {
  endless,
  evaluateByCommand,
  flags,
  last,
  listFiles,
  makeTinyModel,
  only,
  quickstart,
  readJson,
  readMetrics,
  runScript,
  startLowrank,
  temporaryFolder,
  untilSteps,
  writeData,
} from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder)
let tiny: string
beforeAll(async () => {
  tiny = await makeTinyModel(folder)
})

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(20)
}

test('Ctrl-C while training: code 130 and a checkpoint that can be used', async () => {
  const outputDir = join(folder, 'interrupted')
  const { child, ended } = startLowrank([
    'train',
    ...flags({ ...endless, model: quickstart, ...data, outputDir, learningRate: 1e-3 }),
  ])
  await untilSteps(outputDir, child)
  child.kill('SIGINT')
  const { code, stdout, stderr } = await ended
  expect(code, stderr).toBe(130)
  expect(stdout).toBe('')
  expect(stderr).toContain('stopping after this step')
  expect(stderr).toMatch(/^cancelled after step \d+ of 5000; its weights are in /m)
  expect(stderr).not.toMatch(/error|^\s+at /m)

  const step = last(only(readMetrics(outputDir), 'step')).step
  const checkpoint = `checkpoint-${step}`
  expect(listFiles(outputDir)).toEqual(
    [
      'metrics.jsonl',
      'report.html',
      'run.json',
      ...['README.md', 'adapter_config.json', 'adapter_model.safetensors'].map((name) => `${checkpoint}/${name}`),
      ...['special_tokens_map.json', 'tokenizer.json', 'tokenizer_config.json'].map((name) => `${checkpoint}/${name}`),
      ...['optimizer.safetensors', 'trainer_state.json'].map((name) => `${checkpoint}/${name}`),
    ].sort(),
  )
  expect(last(only(readMetrics(outputDir), 'save')).path).toBe(join(outputDir, checkpoint))
  expect(readJson(join(outputDir, 'run.json'))).toMatchObject({
    status: 'cancelled',
    seconds: expect.any(Number),
    peakMemory: expect.any(Number),
  })

  const base = await evaluate({ model: quickstart, data: data.valid, maxLength: 96 })
  const adapter = join(outputDir, checkpoint)
  const found = await evaluateByCommand({ model: quickstart, adapter, data: data.valid, maxLength: 96 })
  expect(found.loss).not.toBe(base.loss)
  expect(found.labelTokens).toBe(base.labelTokens)
})

/** A run that is aborted at the first event that `when` picks: its events, and the error it ends in. */
async function abortAt(
  when: (event: TrainEvent) => boolean,
  options: object = {},
): Promise<{ events: TrainEvent[]; error: unknown; outputDir: string }> {
  const outputDir = join(folder, `aborted-${aborted++}`)
  const controller = new AbortController()
  const events: TrainEvent[] = []
  const config = { ...endless, model: tiny, train: data.train, outputDir, ...options }
  try {
    for await (const event of finetune(config, { signal: controller.signal })) {
      events.push(event)
      if (when(event)) controller.abort()
    }
  } catch (error) {
    return { events, error, outputDir }
  }
  throw new Error('the run was not cancelled')
}
let aborted = 0

test('an aborted signal ends the run in an error of code cancelled, after a checkpoint', async () => {
  const { events, error, outputDir } = await abortAt((event) => event.type === 'step' && event.step === 2)
  expect(error).toBeInstanceOf(LowrankError)
  expect(error).toMatchObject({ code: 'cancelled' })
  const saved = last(events)
  expect(saved).toMatchObject({ type: 'save', path: expect.stringMatching(/checkpoint-\d+$/) })
  expect(only(events, 'save').map(({ step }) => step)).toEqual([last(only(events, 'step')).step])
  expect(listFiles(outputDir).filter((path) => path.includes('tmp'))).toEqual([])
})

test('a signal that was aborted before is heeded before the first step', async () => {
  const outputDir = join(folder, 'never')
  const run = finetune({ ...endless, model: tiny, train: data.train, outputDir }, { signal: AbortSignal.abort() })
  const events: TrainEvent[] = []
  await expect(
    (async () => {
      for await (const event of run) events.push(event)
    })(),
  ).rejects.toMatchObject({ code: 'cancelled' })
  expect(only(events, 'step')).toEqual([])
})

test('a run that is aborted while it evaluates keeps the last step', async () => {
  // One example a batch and many of them: the evaluation is what takes the time.
  const { valid } = writeData(folder, { valid: 80 })
  const options = { valid, evalSteps: 1, perDeviceEvalBatchSize: 1 }
  const { events, error, outputDir } = await abortAt((event) => event.type === 'step', options)
  expect(error).toMatchObject({ code: 'cancelled', message: expect.stringContaining('after step 1 of') })
  expect(only(events, 'eval')).toEqual([])
  expect(only(events, 'save')).toHaveLength(1)
  const adapter = join(outputDir, 'checkpoint-1')
  expect((await evaluate({ model: tiny, adapter, data: data.valid, maxLength: 96 })).loss).toBeGreaterThan(0)
})

test('an evaluation can be aborted too', async () => {
  const controller = new AbortController()
  const { valid } = writeData(folder, { valid: 80 })
  const config = { model: quickstart, data: valid, perDeviceEvalBatchSize: 1 }
  const running = evaluate(config, { signal: controller.signal })
  controller.abort()
  await expect(running).rejects.toMatchObject({ name: 'LowrankError', code: 'cancelled' })
})

test('while the data are read: within a second, with nothing left running', async () => {
  const train = join(folder, 'long.jsonl')
  writeFileSync(train, readFileSync(join(quickstart, '../train.jsonl'), 'utf8').repeat(80))
  const outputDir = join(folder, 'unread')
  const controller = new AbortController()
  let aborted = Infinity
  const reading = (async () => {
    for await (const event of finetune({ model: tiny, train, outputDir }, { signal: controller.signal })) {
      expect(event.type).toBe('status')
      await sleep(700)
      aborted = performance.now()
      controller.abort()
    }
  })()
  await expect(reading).rejects.toMatchObject({ name: 'LowrankError', code: 'cancelled' })
  expect(performance.now() - aborted).toBeLessThan(1000)
  expect(existsSync(outputDir)).toBe(false)
})

test('a second Ctrl-C ends the process at once, in the middle of a step', async () => {
  const outputDir = join(folder, 'twice')
  // Examples of one length go through in one pass, which takes seconds.
  const train = join(folder, 'alike.jsonl')
  const example = readFileSync(join(quickstart, '../train.jsonl'), 'utf8').split('\n')[0]
  writeFileSync(train, `${example}\n`.repeat(400))
  // Laying out so large batches for the plan takes 0.6 ms a step: fewer steps than elsewhere.
  const model = { ...endless, maxSteps: 1000, model: quickstart, train, outputDir }
  const { child, ended } = startLowrank(['train', ...flags({ ...model, perDeviceTrainBatchSize: 400 })])
  await until(() => existsSync(join(outputDir, 'run.json')) || child.exitCode !== null)
  await sleep(300)
  child.kill('SIGINT')
  await sleep(400)
  child.kill('SIGINT')
  const { stderr } = await ended
  // What a shell calls 130; an abort would be SIGABRT.
  expect(child.signalCode, stderr).toBe('SIGINT')
  expect(stderr).toMatch(/stopping after this step; Ctrl-C again quits at once\n$/)
  // The lock of a process that is gone is taken over by the next.
  expect(listFiles(outputDir)).toEqual(['.lowrank.lock', 'metrics.jsonl', 'run.json'])
})

test('a loop that is left ends the run and its thread: the process exits by itself', async () => {
  const outputDir = join(folder, 'left')
  const config = JSON.stringify({ ...endless, model: tiny, train: data.train, outputDir })
  // Several times: the step that is under way must not take the process with it.
  const script = `import { finetune } from 'lowrank'
    for (let i = 0; i < 4; i++) for await (const event of finetune(${config})) if (event.type === 'step') break
    console.log('left')`
  const { code, stdout, stderr } = await runScript(script, 30)
  expect(stdout, stderr).toBe('left\n')
  expect(code).toBe(0)
  // As one that is cancelled: what was learned is kept.
  expect(readJson(join(outputDir, 'run.json'))).toMatchObject({ status: 'cancelled' })
  expect(listFiles(outputDir).filter((path) => path.endsWith('adapter_model.safetensors'))).toHaveLength(1)
})
