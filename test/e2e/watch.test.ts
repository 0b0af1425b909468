import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TrainConfigInput } from 'lowrank'
import { beforeAll, describe, expect, test } from 'vitest'
import { parseTrainConfig } from '../../src/config/index.ts'
import { runFinetune } from '../../src/tasks/finetune.ts'
import type { EventOf } from '../../src/train/events.ts'
import { loadTokenizer } from '../../src/text/tokenizer.ts'
import { directTasks } from '../tasks.ts'
import {
  editCheckpoint,
  figures,
  flags,
  last,
  listFiles,
  lowrankHere,
  makeTinyModel,
  only,
  quickstart,
  readJson,
  readMetrics,
  sha256,
  temporaryFolder,
  writeData,
  writeElements,
  type Outcome,
} from './support.ts'

// What a run does about figures that are out of range, and what the command line says of it.

const folder = temporaryFolder()
const modelFile = 'model.safetensors'

/** Lines of the quickstart's data, one of them replaced. */
function poisonedData(name: string, { lines = 119, at = 70, text = '' }): string {
  const { train } = writeData(folder, { train: lines })
  const all = readFileSync(train, 'utf8').trimEnd().split('\n')
  all[at - 1] = JSON.stringify({ prompt: 'x', completion: text })
  const path = join(folder, name)
  writeFileSync(path, `${all.join('\n')}\n`)
  return path
}

type Options = Omit<TrainConfigInput, 'outputDir'>

/** Runs the command line. */
async function run(
  name: string,
  options: Parameters<typeof flags>[0],
): Promise<Outcome & { readonly outputDir: string }> {
  const outputDir = join(folder, name)
  const outcome = await lowrankHere(['train', ...flags({ outputDir, ...options })])
  return { ...outcome, outputDir }
}

/** The same without a process, up to the end or to a step: the error that the run ends in, if it does. */
async function runHere(
  name: string,
  options: Options,
  until = Infinity,
): Promise<{ outputDir: string; error: unknown }> {
  const outputDir = join(folder, name)
  const config = parseTrainConfig({ ...options, outputDir })
  let step = 0
  try {
    for await (const event of runFinetune(config, { cancelled: () => step >= until }))
      if (event.type === 'step') step = event.step
  } catch (error) {
    return { outputDir, error }
  }
  return { outputDir, error: undefined }
}

describe('a line of unusual tokens', () => {
  const line = 70
  // Emoji and rare letters, which no ticket has.
  const train = poisonedData('garbage.jsonl', { at: line, text: '\u{1f99a}\u{16a0}\u{10d0}\u{3c8}\u{2622}'.repeat(12) })
  const settings = {
    train,
    method: 'full',
    perDeviceTrainBatchSize: 4,
    learningRate: 1e-2,
    lrSchedulerType: 'constant',
    maxSteps: 44,
    maxLength: 96,
    saveStrategy: 'no',
    seed: 3,
    threads: 1,
  } as const
  let common: typeof settings & { readonly model: string }
  let warned: Awaited<ReturnType<typeof run>>
  let skipped: typeof warned
  let spike: EventOf<'spike'>
  /** The weights and what the optimizer remembers, after the step before the spike. */
  let before: string
  const reported = (outputDir: string): object[] =>
    only(readMetrics(outputDir), 'spike').map((event) => ({ ...event, time: undefined, remedy: undefined }))

  beforeAll(async () => {
    common = { ...settings, model: await makeTinyModel(folder) }
    warned = await run('garbage-warn', common)
    expect(warned.code, warned.stderr).toBe(0)
    spike = last(only(readMetrics(warned.outputDir), 'spike'))
    const saving = { saveStrategy: 'steps', saveSteps: spike.step - 1 } as const
    skipped = await run('garbage-skip', { ...common, ...saving, onSpike: 'skip' })
    before = join(skipped.outputDir, `checkpoint-${spike.step - 1}`)
  })

  test('warn: is reported with step, range and lines, and is applied', () => {
    const { outputDir, stderr } = warned
    expect(spike).toMatchObject({ kind: 'loss', action: 'apply', value: spike.loss })
    expect(spike.lines).toContain(line)
    expect(spike.step).toBeGreaterThan(16)
    expect(spike.value).toBeGreaterThan(spike.expected!.limit)
    expect(spike.expected!.limit).toBeGreaterThan(spike.expected!.median)
    expect(only(readMetrics(outputDir), 'step')).toHaveLength(settings.maxSteps)
    expect(stderr).toMatch(new RegExp(`^step ${spike.step}  spike: loss \\d.*; the update was applied$`, 'm'))
    expect(stderr).toContain(`its examples: lines ${spike.lines.join(', ')} of the training data\n`)
    expect(stderr).toMatch(/^hint: Are these lines of .*garbage\.jsonl as they should be/m)
    expect(stderr).toContain(`lowrank replay ${outputDir} --step ${spike.step} reports the loss of each`)
    // No other step is one, though the line is in an epoch before as well, where the model has learned less.
    for (const { lines } of only(readMetrics(outputDir), 'spike')) expect(lines).toContain(line)
  })

  test('skip: neither weights nor optimizer change by the step, and the run goes on', async () => {
    const { code, stderr, outputDir } = skipped
    expect(code, stderr).toBe(0)
    expect(stderr).toContain('; the update was skipped\n')
    const metrics = readMetrics(outputDir)
    const left = only(metrics, 'spike').map(({ step }) => step)
    expect(left).toContain(spike.step)
    const losses = only(metrics, 'step').map(({ loss }) => loss)
    expect(losses).toHaveLength(settings.maxSteps)
    // The mean of what was learned from.
    const applied = losses.filter((_, index) => !left.includes(index + 1))
    expect(last(only(metrics, 'done')).trainLoss).toBeCloseTo(applied.reduce((a, b) => a + b) / applied.length, 10)

    const saving = { saveStrategy: 'steps', saveSteps: spike.step, maxSteps: spike.step } as const
    for (const onSpike of ['skip', 'warn'] as const) {
      const ended = await runHere(`garbage-${onSpike}-ended`, {
        ...common,
        ...saving,
        onSpike,
        resumeFrom: before,
        resumeAnyway: true,
      })
      expect(ended.error).toBeUndefined()
      const after = join(ended.outputDir, `checkpoint-${spike.step}`)
      for (const file of [modelFile, 'optimizer.safetensors']) {
        const same = sha256(join(after, file)) === sha256(join(before, file))
        expect(same, `${onSpike}: ${file}`).toBe(onSpike === 'skip')
      }
    }
  })

  test('stop: the run ends with the weights before it in a checkpoint, and can go on from there', async () => {
    // The same steps up to the spike: an earlier one, if there is any, must be left out in both.
    const stopping = { ...common, onSpike: 'stop', resumeFrom: before, resumeAnyway: true } as const
    const { code, stderr, outputDir } = await run('garbage-stop', stopping)
    expect(code, stderr).toBe(1)
    const checkpoint = join(outputDir, `checkpoint-${spike.step - 1}`)
    expect(stderr).toMatch(new RegExp(`^error: step ${spike.step}: the loss is \\d.* was expected \\(lines .*\\)`, 'm'))
    expect(stderr).toContain(`the weights before it are in ${checkpoint}\n`)
    expect(stderr).toMatch(/^hint: Are these lines/m)
    expect(sha256(join(checkpoint, modelFile))).toBe(sha256(join(before, modelFile)))
    expect(listFiles(outputDir).filter((path) => path.endsWith(modelFile))).toEqual([
      `checkpoint-${spike.step - 1}/${modelFile}`,
    ])
    expect(readJson(join(outputDir, 'run.json'))).toMatchObject({ status: 'failed' })
    expect(last(only(readMetrics(outputDir), 'spike'))).toMatchObject({ step: spike.step, action: 'stop' })

    const again = await runHere('garbage-stop', { ...common, resume: true, resumeAnyway: true, onSpike: 'skip' })
    expect(again.error).toBeUndefined()
    // As if such steps had been left out from the beginning.
    expect(sha256(join(outputDir, modelFile))).toBe(sha256(join(skipped.outputDir, modelFile)))
  })

  test('a run that goes on from a checkpoint is watched as one that never stopped', async () => {
    const { error, outputDir } = await runHere('garbage-resumed', { ...common, onSpike: 'skip', resumeFrom: before })
    expect(error).toBeUndefined()
    expect(sha256(join(outputDir, modelFile))).toBe(sha256(join(skipped.outputDir, modelFile)))
    expect(reported(outputDir)).toEqual(reported(skipped.outputDir))
    expect(reported(outputDir).length).toBeGreaterThan(0)
  })
})

describe('what is not a number', () => {
  let model: string
  const rare = '\u{2622}'
  let rareId = 0

  beforeAll(async () => {
    model = await makeTinyModel(join(folder, 'untied'), { tie_word_embeddings: false })
    const tokenizer = await loadTokenizer(model)
    const texts = readFileSync(join(quickstart, '../train.jsonl'), 'utf8')
    const [[id = 0] = [], ids = []] = await tokenizer.encode([rare, texts])
    expect([...ids]).not.toContain(id)
    tokenizer.close()
    rareId = id
  })

  /**
   * A run that has done one step, after which something in its weights was damaged: the row of the rare token in the embedding, so that an
   * example with it, and no other, makes NaN; or a matrix of its adapter.
   */
  async function damagedRun(name: string, options: Options): Promise<void> {
    const healthy = await runHere(name, { ...options, saveSteps: 1 }, 1)
    expect(healthy.error).toMatchObject({ code: 'cancelled' })
    editCheckpoint(join(healthy.outputDir, 'checkpoint-1'), (checkpoint) => {
      if (options.method === 'full') {
        const row = Array.from({ length: 32 }, (_, i) => rareId * 32 + i)
        for (const at of row) writeElements(join(checkpoint, modelFile), 'model.embed_tokens.weight', NaN, { at })
      } else {
        const name = 'base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight'
        writeElements(join(checkpoint, 'adapter_model.safetensors'), name, NaN, { all: true })
      }
    })
  }

  /** The rest of such a run. */
  async function goOn(name: string, options: Options): Promise<{ outputDir: string; error: unknown }> {
    await damagedRun(name, options)
    return runHere(name, { ...options, resume: true })
  }

  const size = { perDeviceTrainBatchSize: 4, maxLength: 96, maxSteps: 8, seed: 1, threads: 1 } as const
  const common = { ...size, learningRate: 1e-3, method: 'full' } as const
  const finite = (checkpoint: string): boolean => {
    const bytes = readFileSync(join(checkpoint, 'model.safetensors'))
    const data = bytes.subarray(8 + Number(bytes.readBigUInt64LE()))
    const floats = new Float32Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.length))
    // But for the damaged row.
    return floats.filter((value) => !Number.isFinite(value)).length === 32
  }

  test.each(['warn', 'stop'] as const)('%s: ends the run before the update, with a checkpoint', async (onSpike) => {
    const train = poisonedData('nan.jsonl', { lines: 32, at: 9, text: 'about ☢' })
    const options = { ...common, model, train, onSpike }
    await damagedRun(`nan-${onSpike}`, options)
    const { code, stderr, outputDir } = await run(`nan-${onSpike}`, { ...options, resume: true })
    expect(code, stderr).toBe(1)
    const [spike] = only(readMetrics(outputDir), 'spike')
    expect(spike).toMatchObject({ kind: 'nan', value: null, loss: null, action: 'stop' })
    expect(spike!.step).toBeGreaterThan(1)
    expect(spike!.lines).toContain(9)
    expect(stderr).toMatch(
      new RegExp(`^error: step ${spike!.step}: the loss is NaN and the gradient norm NaN \\(lines `, 'm'),
    )
    const checkpoint = join(outputDir, `checkpoint-${spike!.step - 1}`)
    expect(stderr).toContain(`the weights before it are in ${checkpoint}\n`)
    expect(finite(checkpoint)).toBe(true)
  })

  test('a checkpoint from before the run went wrong is kept', async () => {
    const train = poisonedData('nan.jsonl', { lines: 32, at: 9, text: 'about ☢' })
    const first = await goOn('nan-first', { ...common, model, train })
    const { step } = only(readMetrics(first.outputDir), 'spike')[0]!
    expect(step).toBeGreaterThan(2)
    await damagedRun('nan-kept', { ...common, model, train })
    const options = { ...common, model, train, saveSteps: step - 2, saveTotalLimit: 1, resume: true }
    const { error, outputDir } = await runHere('nan-kept', options)
    expect(error).toMatchObject({ code: 'diverged' })
    const names = [...new Set(listFiles(outputDir).map((path) => path.split('/')[0]!))]
    expect(names.filter((name) => name.startsWith('checkpoint'))).toEqual([
      `checkpoint-${step - 2}`,
      `checkpoint-${step - 1}`,
    ])
  })

  test('skip: leaves the step out', async () => {
    const train = poisonedData('nan.jsonl', { lines: 32, at: 9, text: 'about ☢' })
    const { error, outputDir } = await goOn('nan-skip', { ...common, model, train, onSpike: 'skip' })
    expect(error).toBeUndefined()
    const metrics = readMetrics(outputDir)
    expect(only(metrics, 'spike')).toMatchObject([{ kind: 'nan', action: 'skip' }])
    expect(only(metrics, 'done')[0]?.trainLoss).toBeGreaterThan(0)
    expect(finite(outputDir)).toBe(true)
  })

  test('on an fp4 base, nf4 is advised', async () => {
    const train = poisonedData('nan.jsonl', { lines: 32, at: 9, text: 'about ☢' })
    const options = { ...common, model, train, method: 'lora', loadIn4bit: true } as const
    const [fp4, nf4] = [await goOn('nan-fp4', options), await goOn('nan-nf4', { ...options, bnb4bitQuantType: 'nf4' })]
    const hint = (text: RegExp): object => ({ code: 'diverged', hint: expect.stringMatching(text) as string })
    expect(fp4.error).toMatchObject(hint(/^The base is in fp4, .*bnb4bitQuantType nf4/))
    expect(nf4.error).toMatchObject(hint(/^Are these lines/))
  })

  test('skip: five in a row are left out, the sixth ends the run', async () => {
    const train = join(folder, 'all-nan.jsonl')
    writeFileSync(train, `${JSON.stringify({ prompt: rare, completion: 'x' })}\n`.repeat(32))
    const { error, outputDir } = await goOn('nan-all', { ...common, model, train, onSpike: 'skip' })
    expect(error).toMatchObject({ code: 'diverged' })
    const actions = only(readMetrics(outputDir), 'spike').map(({ action }) => action)
    expect(actions).toEqual([...Array<string>(5).fill('skip'), 'stop'])
    expect(finite(join(outputDir, 'checkpoint-6'))).toBe(true)
  })
})

describe('evaluations that get worse', () => {
  const data = writeData(temporaryFolder(), { train: 8, valid: 16 })
  // What a model makes of eight examples that knows others like them.
  const settings = {
    ...data,
    method: 'full',
    perDeviceTrainBatchSize: 4,
    learningRate: 1e-2,
    lrSchedulerType: 'constant',
    numTrainEpochs: 12,
    maxLength: 96,
    saveStrategy: 'no',
    threads: 1,
  } as const
  let common: typeof settings & { readonly model: string }

  beforeAll(async () => {
    const { train } = writeData(folder, { train: 119 })
    const model = await makeTinyModel(join(folder, 'random'))
    const learning = { ...settings, model, train, maxSteps: 40, evalStrategy: 'no' } as const
    const { error, outputDir } = await runHere('learned', learning)
    expect(error).toBeUndefined()
    common = { ...settings, model: outputDir }
  })

  test('overfitting is reported once, with what to do', async () => {
    const { code, stderr, outputDir } = await run('overfitted', common)
    expect(code, stderr).toBe(0)
    const metrics = readMetrics(outputDir)
    const [notice, ...others] = only(metrics, 'overfitting')
    expect(others).toEqual([])
    const evals = only(metrics, 'eval')
    const best = evals.filter(({ step }) => step < notice!.step).toSorted((a, b) => a.loss - b.loss)[0]!
    expect(notice!.best).toMatchObject({ step: best.step, evalLoss: best.loss })
    expect(notice!.evalLoss).toBeGreaterThan(notice!.best.evalLoss)
    expect(notice!.trainLoss).toBeLessThan(notice!.best.trainLoss)
    expect(stderr).toMatch(
      new RegExp(`^step ${notice!.step}  the eval loss rises \\(.*\\) while the train loss falls`, 'm'),
    )
    expect(stderr).toMatch(/^hint: Train for fewer epochs: .*loadBestModelAtEnd.*earlyStoppingPatience.*weightDecay/m)
  })

  test('a run that learns is reported nothing', async () => {
    const gentle = { ...common, learningRate: 1e-3, numTrainEpochs: 4 }
    const { error, outputDir } = await runHere('learning', gentle)
    expect(error).toBeUndefined()
    expect(readMetrics(outputDir).filter(({ type }) => type === 'overfitting' || type === 'spike')).toEqual([])
  })

  test('early stopping ends the run as done, with the best weights where they are asked for', async () => {
    const options = { ...common, earlyStoppingPatience: 2, loadBestModelAtEnd: true }
    const { code, stdout, stderr, outputDir } = await run('stopped-early', options)
    expect(code, stderr).toBe(0)
    const metrics = readMetrics(outputDir)
    const done = last(only(metrics, 'done'))
    const evals = only(metrics, 'eval')
    // Each evaluation is an epoch of two steps.
    expect(done.steps).toBeLessThan(24)
    expect(done.steps).toBe(last(evals).step)
    expect(done.best!.step).toBe(done.steps - 2 * 2)
    expect(done.stoppedEarly).toEqual({
      step: done.steps,
      reason: 'the evaluation loss did not fall below the lowest before, 2 times in a row',
    })
    expect(readJson(join(outputDir, 'run.json'))).toMatchObject({
      status: 'done',
      result: { steps: done.steps, stoppedEarly: done.stoppedEarly },
    })
    expect(stdout).toContain(`stopped early at step ${done.steps}: the evaluation loss`)
    const found = await directTasks.evaluate({ model: outputDir, data: data.valid, maxLength: 96 })
    const best = evals.find(({ step }) => step === done.best!.step)!
    expect(found.loss).toBeCloseTo(figures(best).loss, 6)
  })

  test('a run that ended early and goes on ends at once, with the same bytes', async () => {
    const options = { ...common, earlyStoppingPatience: 2, saveStrategy: 'epoch' } as const
    const first = await runHere('early-saved', options)
    expect(first.error).toBeUndefined()
    const hash = sha256(join(first.outputDir, modelFile))
    const { steps } = last(only(readMetrics(first.outputDir), 'done'))
    const again = await run('early-saved', { ...options, resume: true })
    expect(again.code, again.stderr).toBe(0)
    expect(last(only(readMetrics(first.outputDir), 'done'))).toMatchObject({ steps, stoppedEarly: { step: steps } })
    expect(sha256(join(first.outputDir, modelFile))).toBe(hash)
    expect(again.stdout).toContain('the weights are those of the last step, since loadBestModelAtEnd is not set')
  })

  test('early stopping without evaluations is refused', async () => {
    const { code, stderr } = await lowrankHere([
      'train',
      ...flags({ model: quickstart, train: data.train, outputDir: join(folder, 'none'), earlyStoppingPatience: 1 }),
    ])
    expect(code).toBe(2)
    expect(stderr).toContain('--early-stopping-patience: needs --valid, which is not set')
  })
})
