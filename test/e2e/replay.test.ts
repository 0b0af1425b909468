import { appendFileSync, cpSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { replay, type ReplayOptionsInput, type ReplayResult, type TrainConfigInput } from 'lowrank'
import { beforeAll, describe, expect, test } from 'vitest'
import { directTasks } from '../tasks.ts'
import {
  collect,
  last,
  lowrank,
  lowrankHere,
  makeTinyModel,
  only,
  readMetrics,
  temporaryFolder,
  writeData,
  type Outcome,
} from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder)
const out = join(folder, 'out')

// Between long examples short ones, so that there is something to pack.
const lines = readFileSync(data.train, 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line) as { prompt: string; completion: string })
  .flatMap((line, i) => [{ prompt: `Ticket ${i}:`, completion: ' none'.repeat((i % 5) + 1) }, line])
  .slice(0, 16)
writeFileSync(data.train, `${lines.map((line) => JSON.stringify(line)).join('\n')}\n`)

let model: string

async function train(options: Partial<TrainConfigInput> & { readonly outputDir: string }): Promise<void> {
  const common = { model, train: data.train, maxLength: 96, maxSteps: 7, threads: 1, learningRate: 1e-2 }
  await collect({ ...common, perDeviceTrainBatchSize: 2, gradientAccumulationSteps: 2, ...options })
}

/** What is found, and what is said on the way. */
async function replayed(
  run: string,
  options: ReplayOptionsInput,
): Promise<{ readonly result: ReplayResult; readonly said: string }> {
  const said: string[] = []
  const result = await directTasks.replay(run, options, { onStatus: (message) => said.push(message) })
  return { result, said: said.join('\n') }
}

const recorded = (run: string, step: number): number => only(readMetrics(run), 'step')[step - 1]!.loss

/** Everything random that a step can have. */
const random = {
  loraDropout: 0.2,
  neftuneNoiseAlpha: 5,
  warmupSteps: 2,
  r: 4,
  targetModules: 'all-linear',
  saveSteps: 3,
  threads: 2,
} as const

beforeAll(async () => {
  model = await makeTinyModel(folder)
  await train({ ...random, outputDir: out })
})

describe('a step of a run is computed again, to the last bit', () => {
  test.each([
    { step: 1, from: 'start', recomputed: 0 },
    { step: 3, from: 'start', recomputed: 2 },
    { step: 4, from: 'checkpoint', recomputed: 0 },
    { step: 6, from: 'checkpoint', recomputed: 2 },
    { step: 7, from: 'checkpoint', recomputed: 0 },
  ])('step $step from the $from and $recomputed steps', async ({ step, from, recomputed }) => {
    const { result } = await replayed(out, { step })
    expect(result.weights).toMatchObject({ from, recomputed })
    expect(result.loss).toBe(recorded(out, step))
    expect(result).toMatchObject({ step, recorded: result.loss, equal: true })
    expect(result.firstDifference).toBeUndefined()
  })

  test('without its checkpoints, from the start', async () => {
    const bare = join(folder, 'bare')
    cpSync(out, bare, { recursive: true, filter: (path) => !path.includes('checkpoint-') })
    const { result } = await replayed(bare, { step: 6 })
    expect(result).toMatchObject({ equal: true, weights: { from: 'start', recomputed: 5 } })
    expect(result.loss).toBe(recorded(out, 6))
  })

  test('past a damaged checkpoint, which is named', async () => {
    const damaged = join(folder, 'damaged')
    cpSync(out, damaged, { recursive: true })
    truncateSync(join(damaged, 'checkpoint-6/optimizer.safetensors'), 100)
    const { code, stdout, stderr } = await lowrank(['replay', damaged, '--step', '7', '--json'])
    expect(code, stderr).toBe(0)
    expect(stderr).toMatch(/^warning: .*checkpoint-6\/optimizer\.safetensors: damaged/m)
    expect(JSON.parse(stdout)).toMatchObject({ equal: true, weights: { path: join(damaged, 'checkpoint-3') } })
  })

  test('of a run that went on from a checkpoint', async () => {
    const resumed = join(folder, 'resumed')
    cpSync(out, resumed, { recursive: true })
    rmSync(join(resumed, 'checkpoint-6'), { recursive: true })
    await train({ ...random, outputDir: resumed, resume: true })
    for (const step of [3, 6]) {
      const { result } = await replayed(resumed, { step })
      expect(result).toMatchObject({ equal: true, recorded: recorded(out, step), weights: { recomputed: 2 } })
    }
  })

  test.each([
    { name: 'packed', options: { packing: true, loraDropout: 0.2 } },
    { name: 'on a base in 4 bits', options: { method: 'qlora', activations: 'recompute' } },
    { name: 'of every weight', options: { method: 'full', saveSteps: 4 } },
    { name: 'with label smoothing', options: { labelSmoothingFactor: 0.1 } },
  ] as const)('a run $name', async ({ name, options }) => {
    const outputDir = join(folder, `other ${name}`)
    await train({ saveStrategy: 'saveSteps' in options ? 'steps' : 'no', ...options, outputDir })
    const { result } = await replayed(outputDir, { step: 6 })
    expect(result.loss).toBe(recorded(outputDir, 6))
    expect(result.equal).toBe(true)
  })
})

describe('the examples of a step', () => {
  let result: ReplayResult
  beforeAll(async () => {
    result = await replay(out, { step: 4 })
  })

  test('are reported with line, tokens, labels and loss, whose mean is that of the step', () => {
    expect(result.examples).toHaveLength(4)
    expect(new Set(result.examples.map(({ line }) => line)).size).toBe(4)
    const labels = result.examples.reduce((sum, { labelTokens }) => sum + labelTokens, 0)
    expect(labels).toBe(result.labelTokens)
    const mean = result.examples.reduce((sum, { loss, labelTokens }) => sum + loss * labelTokens, 0) / labels
    expect(mean).toBeCloseTo(result.loss, 6)
    for (const { line, tokens, labelTokens, completion } of result.examples) {
      expect(completion).toBe(lines[line - 1]?.completion)
      expect(tokens).toBeGreaterThan(labelTokens)
    }
  })

  test('come with the highest loss first, or as they were computed', async () => {
    const losses = result.examples.map(({ loss }) => loss)
    expect(losses).toEqual(losses.toSorted((a, b) => b - a))
    const { examples, microBatches } = (await replayed(out, { step: 4, sort: 'batch' })).result
    const order = examples.map(({ microBatch }) => microBatch)
    expect(order).toEqual(order.toSorted((a, b) => a - b))
    expect(last(order)).toBe(microBatches)
    expect(examples).toEqual(expect.arrayContaining([...result.examples]))
  })

  test('on the terminal', async () => {
    const { stdout, stderr } = await lowrankHere(['replay', out, '--step', '6'])
    expect(stderr).toContain('computing steps 4 to 5 from checkpoint-3 on\n')
    const loss = recorded(out, 6)
    expect(stdout).toContain(`loss: recorded ${loss}, replayed ${loss}: equal\n`)
    expect(stdout).toMatch(/^step 6, epoch 1\.50: 4 examples in \d micro-batch(es)?, \d+ label tokens; weights from /m)
    const rows = stdout.split('\n').filter((line) => /^ *\d+ +\d+ +\d+ +\d+ +\d\.\d{4}  \S/.test(line))
    expect(rows).toHaveLength(4)
  })
})

describe('weights as they are', () => {
  test('of a checkpoint of another step give another loss, and are said to', async () => {
    const at = join(out, 'checkpoint-3')
    const { result } = await replayed(out, { step: 6, at })
    expect(result.weights).toEqual({ from: 'folder', path: at, recomputed: 0 })
    expect(result).toMatchObject({ equal: false, recorded: recorded(out, 6) })
    const { stdout } = await lowrankHere(['replay', out, '--step', '6', '--at', at])
    expect(stdout).toMatch(/they differ by \d\.\de-\d+, since the weights are not those of the run$/m)
  })

  test('of the checkpoint before the step give its loss', async () => {
    const { result } = await replayed(out, { step: 4, at: join(out, 'checkpoint-3') })
    expect(result.equal).toBe(true)
  })
})

describe('refused', () => {
  const refusal = async (...args: readonly string[]): Promise<Outcome> => {
    const outcome = await lowrankHere(['replay', ...args])
    expect(outcome.code).toBe(2)
    return outcome
  }

  test('without a run, a step, or with a step that the run does not take', async () => {
    expect((await refusal()).stderr).toContain('RUN is missing')
    expect((await refusal(out)).stderr).toContain('--step: missing')
    await expect(replayed(join(folder, 'nothing'), { step: 1 })).rejects.toThrow('run.json')
    await expect(replayed(out, { step: 8 })).rejects.toThrow('takes 7 steps')
  })

  test('after the data has changed, with the difference; --anyway replays', async () => {
    const [changedRun, train] = [join(folder, 'changed'), join(folder, 'changed.jsonl')]
    cpSync(data.train, train)
    await collect({ model, train, maxLength: 96, maxSteps: 2, saveStrategy: 'no', threads: 1, outputDir: changedRun })
    appendFileSync(train, `${JSON.stringify(lines[0])}\n`)
    const { stderr } = await refusal(changedRun, '--step', '2')
    expect(stderr).toMatch(/have changed since:\n {2}train, its content: .*SHA-256/)
    expect(stderr).toContain('--anyway')
    const { said } = await replayed(changedRun, { step: 2, anyway: true })
    expect(said).toContain('warning: the inputs of the run have changed')
    rmSync(changedRun, { recursive: true })
  })
})
