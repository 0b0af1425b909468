import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { EvalResult, TrainEvent } from 'lowrank'
import { beforeAll, describe, expect, test } from 'vitest'
import { directTasks } from '../tasks.ts'
import {
  collect,
  figures,
  flags,
  hashFolder,
  last,
  listFiles,
  lowrank,
  makeTinyModel,
  only,
  parseLines,
  quickstart,
  readJson,
  readMetrics,
  root,
  sha256,
  temporaryFolder,
  tensorHashes,
  tensorShapes,
  writeData,
  type Outcome,
} from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder)
const adapterFile = 'adapter_model.safetensors'
const tokenizerFiles = ['special_tokens_map.json', 'tokenizer.json', 'tokenizer_config.json']

/** A file whose keys are spelled as PEFT and transformers do; some are overridden by flags. */
const yaml = join(folder, 'run.yaml')
writeFileSync(
  yaml,
  `model: ${quickstart}
train: ${data.train}
valid: ${data.valid}
r: 4
lora_alpha: 16
lora_dropout: 0.1
per_device_train_batch_size: 4
learning_rate: 1e-4
max_steps: 99
seed: 1
logging_steps: 2
eval_steps: 4
saveSteps: 4
max_length: 96
samples: 1
`,
)
const out = join(folder, 'out')
const common = { maxSteps: 8, learningRate: 1e-2, seed: 7 }

let before: Record<string, string>
let outcome: Outcome
let events: (TrainEvent & { readonly time: string })[]

beforeAll(async () => {
  before = hashFolder(quickstart)
  outcome = await lowrank(['train', yaml, ...flags({ ...common, outputDir: out })])
  expect(outcome.code, outcome.stderr).toBe(0)
  events = readMetrics(out)
})

describe('a run from a file and flags', () => {
  test('lowers the loss', () => {
    const losses = only(events, 'step').map((event) => event.loss)
    expect(losses).toHaveLength(8)
    // Four steps go through all sixteen examples.
    expect(mean(losses.slice(4))).toBeLessThan(mean(losses.slice(0, 4)) - 0.02)
    const [first, second] = only(events, 'eval')
    expect(second?.loss).toBeLessThan(first!.loss)
  })

  test('writes results to standard output and progress to standard error', () => {
    const { stdout, stderr } = outcome
    expect(stdout).toMatch(/^sample 1$/m)
    expect(stdout).toMatch(/^8 steps in .+: train loss \d/m)
    expect(stdout).toContain(`saved in ${out}, with`)
    expect(stdout).not.toMatch(/^step \d/m)
    expect(stderr).toMatch(/^train: 16 examples, .*\nvalid: 8 examples, /m)
    expect(stderr).toMatch(/^step 2 {2}epoch 0\.50 {2}loss \d/m)
    expect(stderr).toMatch(/^step 4 {2}eval loss \d/m)
    expect(stderr).not.toContain('saved in')
  })

  test('leaves an adapter as PEFT names it, checkpoints and the record of the run', () => {
    const adapter = ['README.md', 'adapter_config.json', adapterFile, ...tokenizerFiles]
    const saved = [...adapter, 'optimizer.safetensors', 'trainer_state.json']
    const checkpoints = ['checkpoint-4', 'checkpoint-8'].flatMap((name) => saved.map((file) => `${name}/${file}`))
    expect(listFiles(out)).toEqual([...adapter, ...checkpoints, 'metrics.jsonl', 'report.html', 'run.json'].sort())
    expect(readJson(join(out, 'adapter_config.json'))).toMatchObject({
      peft_type: 'LORA',
      base_model_name_or_path: quickstart,
      r: 4,
      lora_alpha: 16,
      lora_dropout: 0.1,
      target_modules: ['q_proj', 'v_proj'],
    })
    const modules = Array.from({ length: 5 }, (_, layer) =>
      ['q_proj', 'v_proj'].map((name) => `base_model.model.model.layers.${layer}.self_attn.${name}`),
    ).flat()
    expect(Object.keys(tensorShapes(join(out, adapterFile)))).toEqual(
      modules.flatMap((module) => [`${module}.lora_A.weight`, `${module}.lora_B.weight`]),
    )
    for (const name of tokenizerFiles) expect(sha256(join(out, name))).toBe(sha256(join(quickstart, name)))
    expect(readFileSync(join(out, 'README.md'), 'utf8')).toContain('library_name: peft')
  })

  test('records what went in and what came out in run.json', () => {
    const { version } = readJson(join(root, 'package.json')) as { version: string }
    const runtime = readJson(join(root, 'node_modules/onnxruntime-node/package.json')) as { version: string }
    const done = last(only(events, 'done'))
    const model = listFiles(quickstart)
    expect(readJson(join(out, 'run.json'))).toEqual({
      // The flags won over the file, and the rest of the file counts.
      config: expect.objectContaining({
        ...common,
        r: 4,
        loraAlpha: 16,
        loraDropout: 0.1,
        maxLength: 96,
        saveSteps: 4,
      }),
      versions: { lowrank: version, node: process.version, onnxruntime: runtime.version },
      hashes: {
        model: hashTogether(model.map((name) => join(quickstart, name))),
        train: sha256(data.train),
        valid: sha256(data.valid),
      },
      data: only(events, 'data')[0]?.train,
      files: listFiles(out).filter((name) => name !== 'README.md' && !name.includes('/')),
      cards: [sha256(join(out, 'README.md'))],
      startedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      status: 'done',
      seconds: done.seconds,
      peakMemory: done.peakMemory,
      result: {
        steps: 8,
        trainLoss: done.trainLoss,
        tokens: done.tokens,
        realTokens: done.realTokens,
        labelTokens: done.labelTokens,
        paddingShare: done.paddingShare,
        best: done.best,
      },
    })
    expect(done.seconds).toBeGreaterThan(0.1)
    expect(done.peakMemory).toBeGreaterThan(50e6)
    expect(done.peakMemory).toBeLessThan(4e9)
  })

  test('tells every event in metrics.jsonl', () => {
    expect(events.map((event) => event.type).join(' ')).toBe(
      'status data plan status sample step step log step step log eval save step step log step step log eval save save sample done',
    )
    for (const { time } of events) expect(new Date(time).toISOString()).toBe(time)
  })

  test('made what eval finds: the five figures of the last evaluation, on one line', async () => {
    const args = flags({ model: quickstart, adapter: out, data: data.valid, maxLength: 96 })
    const { code, stdout } = await lowrank(['eval', ...args, '--json'])
    expect(code).toBe(0)
    expect(stdout.indexOf('\n')).toBe(stdout.length - 1)
    expect(Object.keys(JSON.parse(stdout) as object)).toEqual([
      'loss',
      'perplexity',
      'tokenAccuracy',
      'labelTokens',
      'examples',
      'data',
    ])
    expect(figures(JSON.parse(stdout) as EvalResult)).toEqual(figures(last(only(events, 'eval'))))
  })

  test('made checkpoints that can be evaluated', async () => {
    const adapter = join(out, 'checkpoint-4')
    const atStep4 = await directTasks.evaluate({ model: quickstart, maxLength: 96, data: data.valid, adapter })
    expect(figures(atStep4)).toEqual(figures(only(events, 'eval')[0]!))
    expect(sha256(join(out, 'checkpoint-8', adapterFile))).toBe(sha256(join(out, adapterFile)))
  })

  test('left the base model alone', () => {
    expect(Object.keys(before)).toContain('model.safetensors')
    expect(hashFolder(quickstart)).toEqual(before)
  })
})

test('with --json, the same run tells its events on standard output, and makes the same bytes', async () => {
  const again = join(folder, 'again')
  const { code, stdout } = await lowrank(['train', yaml, ...flags({ ...common, outputDir: again, json: true })])
  expect(code).toBe(0)
  expect(sha256(join(again, adapterFile))).toBe(sha256(join(out, adapterFile)))
  const told = parseLines<TrainEvent>(stdout)
  expect(readMetrics(again)).toEqual(told.map((event) => ({ ...event, time: expect.any(String) as unknown })))
  expect(lossesOf(told)).toEqual(lossesOf(events))
})

describe('on a tiny model with biases', () => {
  let model: string
  beforeAll(async () => {
    model = await makeTinyModel(folder)
  })
  let runs = 0
  const run = async (options: object): Promise<{ events: TrainEvent[]; outputDir: string }> => {
    const outputDir = join(folder, `tiny-run-${runs++}`)
    const config = { model, ...data, outputDir, r: 2, maxLength: 96, learningRate: 1e-2, threads: 1, ...options }
    return { events: await collect(config), outputDir }
  }
  /** The figures of the model with an adapter, or as it is. */
  const evaluated = async (adapter?: string): Promise<EvalResult> =>
    figures(await directTasks.evaluate({ model, adapter, data: data.valid, maxLength: 96, threads: 1 }))

  test('loadBestModelAtEnd saves the adapter with the lowest evaluation loss', async () => {
    // Far too high a rate: good at first, then worse.
    const rate = { learningRate: 3, lrSchedulerType: 'constant', maxGradNorm: 0, maxSteps: 4 }
    const watch = { evalSteps: 1, evalOnStart: true, saveStrategy: 'no', loadBestModelAtEnd: true }
    const { events, outputDir } = await run({ ...rate, ...watch })
    const evals = only(events, 'eval')
    const losses = evals.map(({ loss }) => loss)
    const lowest = Math.min(...losses)
    expect(evals.map(({ step }) => step)).toEqual([0, 1, 2, 3, 4])
    expect(last(losses)).toBeGreaterThan(lowest)
    const best = evals.find(({ loss }) => loss === lowest)
    expect(best?.step).toBeGreaterThan(0)
    expect(last(only(events, 'done')).best).toEqual({ step: best?.step, loss: lowest })
    expect((await evaluated(outputDir)).loss).toBe(lowest)
  })

  test('adapter trains further from where that adapter is', async () => {
    const shape = { r: 3, targetModules: ['q_proj', 'up_proj'] }
    const first = await run({ ...shape, maxSteps: 3 })
    const more = { adapter: first.outputDir, r: undefined, maxSteps: 2, evalOnStart: true, learningRate: 1e-3 }
    const { events, outputDir } = await run(more)
    const evals = only(events, 'eval')
    expect(evals[0]?.loss).toBe(last(only(first.events, 'eval')).loss)
    expect(last(evals).loss).toBeLessThan(evals[0]!.loss)
    // It keeps the shape of the adapter that it continues.
    const [before, after] = [first.outputDir, outputDir].map((path) => join(path, adapterFile)) as [string, string]
    expect(tensorShapes(after)).toEqual(tensorShapes(before))
    expect(sha256(after)).not.toBe(sha256(before))
  })

  test('accumulation changes nothing: 8 x 1, 4 x 2 and 2 x 4', async () => {
    const curves: number[][] = []
    for (const [batch, accumulation] of [
      [8, 1],
      [4, 2],
      [2, 4],
    ] as const) {
      const sizes = { perDeviceTrainBatchSize: batch, gradientAccumulationSteps: accumulation, maxSteps: 3 }
      curves.push(lossesOf((await run(sizes)).events))
    }
    for (const curve of curves.slice(1)) {
      curve.forEach((loss, i) => expect(Math.abs(loss - curves[0]![i]!)).toBeLessThan(1e-5))
    }
    // Four of sixteen examples a step are another run.
    const other = lossesOf((await run({ perDeviceTrainBatchSize: 4, maxSteps: 3 })).events)
    expect(Math.abs(other[0]! - curves[0]![0]!)).toBeGreaterThan(1e-4)
  })

  test('the seed chooses the first A too', async () => {
    const name = 'base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight'
    const hashes: unknown[] = []
    for (const seed of [1, 2]) {
      // As long as B is zero, A has no gradient: one step leaves it as it was drawn.
      const { outputDir } = await run({ maxSteps: 1, seed })
      hashes.push(tensorHashes(join(outputDir, adapterFile))[name])
    }
    expect(hashes[0]).toBeDefined()
    expect(hashes[1]).not.toBe(hashes[0])
  })

  test('--save-total-limit keeps the last checkpoints', async () => {
    const { outputDir } = await run({ maxSteps: 4, saveSteps: 1, saveTotalLimit: 2 })
    const checkpoints = new Set(listFiles(outputDir).flatMap((path) => /^checkpoint-\d+/.exec(path) ?? []))
    expect([...checkpoints]).toEqual(['checkpoint-3', 'checkpoint-4'])
  })

  const lora = (...modules: string[]): string[] =>
    modules.flatMap((name) => [`${name}.lora_A.weight`, `${name}.lora_B.weight`])
  let untrained: EvalResult
  beforeAll(async () => {
    untrained = await evaluated()
  })
  const eachLayer = (names: (prefix: string) => string[]): string[] =>
    [0, 1].flatMap((i) => names(`model.layers.${i}.`))

  test.each([
    {
      options: { bias: 'all', targetModules: ['q_proj'] },
      names: eachLayer((p) => [
        ...lora(`${p}self_attn.q_proj`),
        `${p}self_attn.q_proj.base_layer.bias`,
        ...['k', 'v', 'o'].map((name) => `${p}self_attn.${name}_proj.bias`),
        ...['gate', 'up', 'down'].map((name) => `${p}mlp.${name}_proj.bias`),
      ]),
    },
    {
      options: { bias: 'lora_only', targetModules: ['q_proj'] },
      names: eachLayer((p) => [...lora(`${p}self_attn.q_proj`), `${p}self_attn.q_proj.base_layer.bias`]),
    },
    {
      options: { modulesToSave: ['lm_head'], targetModules: ['v_proj'] },
      names: [...eachLayer((p) => lora(`${p}self_attn.v_proj`)), 'lm_head.weight'],
    },
    {
      options: { targetModules: '.*\\.(q|up)_proj' },
      names: eachLayer((p) => lora(`${p}self_attn.q_proj`, `${p}mlp.up_proj`)),
    },
    {
      options: { targetModules: ['down_proj', 'k_proj'], layersToTransform: [1] },
      names: lora('model.layers.1.mlp.down_proj', 'model.layers.1.self_attn.k_proj'),
    },
    {
      options: { targetModules: 'all-linear', rankPattern: { o_proj: 3 }, loraDropout: 0.2, useRslora: true },
      names: eachLayer((p) => [
        ...lora(...['q', 'k', 'v', 'o'].map((name) => `${p}self_attn.${name}_proj`)),
        ...lora(...['gate', 'up', 'down'].map((name) => `${p}mlp.${name}_proj`)),
      ]),
    },
  ])('trains and saves exactly what $options names', async ({ options, names }) => {
    const { events: told, outputDir } = await run({ ...options, maxSteps: 1 })
    const tensors = tensorShapes(join(outputDir, adapterFile))
    expect(Object.keys(tensors)).toEqual(names.map((name) => `base_model.model.${name}`).sort())
    for (const [name, [rank]] of Object.entries(tensors)) {
      if (name.endsWith('.lora_A.weight'))
        expect(rank, name).toBe('rankPattern' in options && name.includes('o_proj') ? 3 : 2)
    }
    // What was trained made a difference, and what was saved is what was trained.
    const found = await evaluated(outputDir)
    expect(found).toEqual(figures(last(only(told, 'eval'))))
    expect(found.loss).not.toBe(untrained.loss)
  })
})

function mean(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0) / values.length
}

function lossesOf(told: readonly TrainEvent[]): number[] {
  return only(told, 'step').map((event) => event.loss)
}

/** As run.json identifies files: names and contents, one after another. */
function hashTogether(paths: readonly string[]): string {
  const hash = createHash('sha256')
  for (const path of paths) hash.update(basename(path)).update('\0').update(readFileSync(path))
  return hash.digest('hex')
}
