/*
 * Random training set-ups here and in PyTorch with PEFT: shapes, options of LoRA, methods, quantized bases, optimizers, schedules, packing,
 * what memory is spent on. Same weights, same batches, no dropout; compares loss and gradient norm of each step.
 *
 *     npm run parity:random -- [--count 300] [--seed 1] [--only SEED]
 *
 * Set-up i has the seed `seed + i`, which decides all of it: `--only` runs one alone and prints it. One Python process serves all. Without
 * Python (torch, transformers, peft, bitsandbytes) it says so and passes.
 */
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { findPython, hasBitsAndBytes } from '../../bench/python.ts'
import { parseTrainConfig, quantizationOf, type TrainConfig } from '../../src/config/index.ts'
import { snakeCase } from '../../src/config/options.ts'
import type { MemoryChoice } from '../../src/config/index.ts'
import { openSession } from '../../src/session/session.ts'
import { stepBatches } from '../../src/text/batches.ts'
import { readExamples } from '../../src/text/examples.ts'
import { saveResult } from '../../src/export/save.ts'
import { startTraining, trainStep } from '../../src/train/trainer.ts'
import { fillUniform, stream } from '../../src/util/random.ts'
import { Draws } from '../draws.ts'
import { writeSmallTokenizer } from '../small-tokenizer.ts'
import { randomSetup, vocabulary, type Setup } from './random-setup.ts'

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '300' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
  },
})
/** In nats, and as a share of the norm. */
const allowed = { loss: 1e-4, gradNorm: 2e-3 }

const script = fileURLToPath(new URL('../../../test/parity/random_setups.py', import.meta.url))
const quickstart = fileURLToPath(new URL('../../../examples/quickstart/model', import.meta.url))

interface Curve {
  readonly loss: readonly number[]
  readonly gradNorm: readonly number[]
}

/** Asks a Python process that answers each line with one; `close` ends it. */
function startPython(python: string): { ask: <T>(request: object) => Promise<T>; close: () => void } {
  const child = spawn(python, [script], { stdio: ['pipe', 'pipe', 'pipe'] })
  let reported = ''
  child.stderr.on('data', (text: Buffer) => (reported = (reported + text.toString()).slice(-4000)))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const ask = async <T>(request: object): Promise<T> => {
    child.stdin.write(`${JSON.stringify(request)}\n`)
    const { done, value } = await lines.next()
    if (done === true) throw new Error(`Python ended:\n${reported}`)
    const answer = JSON.parse(value) as T & { readonly error?: string }
    if (answer.error !== undefined) throw new Error(answer.error)
    return answer
  }
  return { ask, close: () => child.stdin.end() }
}

async function compare(
  ask: ReturnType<typeof startPython>['ask'],
  seed: number,
  setup: Setup,
  work: string,
): Promise<{ ours: Curve; theirs: Curve }> {
  const [model, data] = [join(work, 'model'), join(work, 'train.jsonl')]
  await ask({ task: 'make', folder: model, config: setup.model, dtype: setup.dtype, seed })
  await writeSmallTokenizer(quickstart, model, vocabulary)
  if (setup.oldRope) await spellRopeAsBefore(join(model, 'config.json'))
  await writeFile(data, setup.examples.map((example) => `${JSON.stringify(example)}\n`).join(''))
  const config = parseTrainConfig({ model, train: data, outputDir: join(work, 'out'), ...setup.options })
  const { curve, steps, adapter } = await trainHere(config, setup.memory, join(work, 'initial'), seed)
  const theirs = await ask<Curve>({
    task: 'train',
    model,
    adapter,
    quantization: quantizationOf(config) ?? null,
    data,
    maxLength: config.maxLength,
    steps,
    arguments: argumentsOf(config),
    loraPlus: config.loraplusLrRatio ?? null,
  })
  return { ours: curve, theirs }
}

/** `rope_theta` and `rope_scaling`, as checkpoints had them before `rope_parameters`. */
async function spellRopeAsBefore(path: string): Promise<void> {
  const { rope_parameters: rope, ...config } = JSON.parse(await readFile(path, 'utf8')) as {
    rope_parameters: { rope_theta: number; rope_type: string }
  }
  const { rope_theta, ...scaling } = rope
  const rope_scaling = rope.rope_type === 'default' ? null : scaling
  await writeFile(path, JSON.stringify({ ...config, rope_theta, rope_scaling }))
}

/** Trains, and saves the adapter as it was before, with the lines of each micro-batch. */
async function trainHere(
  config: TrainConfig,
  choice: MemoryChoice,
  folder: string,
  seed: number,
): Promise<{ curve: Curve; steps: number[][][]; adapter: string | null }> {
  const { model, method, labelSmoothingFactor: labelSmoothing, maxLength } = config
  const lora = method === 'full' ? undefined : config
  await using session = await openSession({
    model,
    threads: 1,
    quantization: quantizationOf(config),
    training: { lora, init: 'pretrained', seed: config.seed, labelSmoothing },
  })
  const opened = await session.load(choice)
  const { tokenizer, pipeline, trainables, regimeOf, adaptation } = opened
  // A fresh adapter has B = 0, and no gradient at A.
  for (const { name, data } of trainables.values()) {
    if (name.includes('.lora_B.')) fillUniform(data, -0.2, 0.2, stream(seed, name))
  }
  if (lora !== undefined) {
    await saveResult({
      folder,
      trainables,
      base: { name: model, config: '{}', companions: new Map() },
      lora: opened.lora,
      fileName: adaptation.fileName,
      storage: opened.storage,
      saveDtype: 'auto',
      maxShardSize: 1e9,
      facts: [],
    })
  }
  const { examples } = await readExamples({ sources: [{ path: config.train, weight: 1 }], tokenizer, maxLength })
  tokenizer.close()
  const training = startTraining({ config, pipeline, trainables, examples, regimeOf })
  const steps = Array.from({ length: training.steps }, (_, step) =>
    stepBatches({ ...training.order, step }).batches.map((batch) => batch.examples.map(({ line }) => line - 1)),
  )
  const curve = { loss: [] as number[], gradNorm: [] as number[] }
  while (training.state.step < training.steps) {
    const { loss, gradNorm } = await trainStep(training)
    curve.loss.push(loss)
    curve.gradNorm.push(gradNorm)
  }
  return { curve, steps, adapter: lora === undefined ? null : folder }
}

const optimizers = { adamw: 'adamw_torch', 'adamw-8bit': 'adamw_bnb_8bit', sgd: 'sgd' } as const

/** The options as transformers' `TrainingArguments` call them. */
function argumentsOf(config: TrainConfig): Record<string, unknown> {
  const settings = (given: Readonly<Record<string, unknown>> = {}): [string, unknown][] =>
    Object.entries(given).map(([key, value]) => [snakeCase(key), value])
  return {
    optim: optimizers[config.optim],
    optim_args: settings(config.optimArgs)
      .map(([key, value]) => `${key}=${String(value)}`)
      .join(','),
    learning_rate: config.learningRate,
    lr_scheduler_type: config.lrSchedulerType,
    lr_scheduler_kwargs: Object.fromEntries(settings(config.lrSchedulerKwargs)),
    warmup_steps: config.warmupSteps,
    weight_decay: config.weightDecay,
    adam_beta1: config.adamBeta1,
    adam_beta2: config.adamBeta2,
    adam_epsilon: config.adamEpsilon,
    max_grad_norm: config.maxGradNorm,
    label_smoothing_factor: config.labelSmoothingFactor,
  }
}

function largest(ours: readonly number[], theirs: readonly number[], relative: boolean): number {
  if (ours.length === 0 || ours.length !== theirs.length) return NaN
  const differences = ours.map((value, i) => {
    const other = theirs[i] ?? NaN
    return Math.abs(value - other) / (relative ? other : 1)
  })
  // NaN wins, unlike in Math.max of numbers alone.
  return differences.reduce((most, value) => (value > most || Number.isNaN(value) ? value : most), 0)
}

function describe({ options, model, dtype, memory }: Setup): string {
  const { method, optim, lrSchedulerType, packing, targetModules } = options
  const heads = `${model.num_attention_heads}/${model.num_key_value_heads} heads of ${model.head_dim}`
  const parts = [
    method,
    options.loadIn8bit === true ? 'int8' : options.bnb4bitQuantType,
    `${model.num_hidden_layers} layers, ${heads}, ${dtype}`,
    model.rope_parameters.rope_type,
    typeof targetModules === 'string' ? targetModules : targetModules?.join('+'),
    optim,
    lrSchedulerType,
    packing === true ? 'packed' : undefined,
    memory.streamed === undefined ? memory.activations : 'streamed',
  ]
  return parts.filter((part) => part !== undefined).join(', ')
}

async function runAll(python: string): Promise<void> {
  const { ask, close } = startPython(python)
  const first = Number(values.only ?? values.seed)
  const count = values.only === undefined ? Number(values.count) : 1
  const most = { loss: 0, gradNorm: 0 }
  let failed = 0
  try {
    for (let seed = first; seed < first + count; seed++) {
      const setup = randomSetup(new Draws(seed, 'set-up'))
      if (values.only !== undefined) console.log(JSON.stringify({ ...setup, examples: setup.examples.length }, null, 2))
      const work = await mkdtemp(join(tmpdir(), 'lowrank-random-'))
      try {
        const { ours, theirs } = await compare(ask, seed, setup, work)
        const loss = largest(ours.loss, theirs.loss, false)
        const gradNorm = largest(ours.gradNorm, theirs.gradNorm, true)
        const passed = loss < allowed.loss && gradNorm < allowed.gradNorm
        if (!passed) failed++
        most.loss = Math.max(most.loss, loss)
        most.gradNorm = Math.max(most.gradNorm, gradNorm)
        const found = `loss ${loss.toExponential(1)}, gradient norm ${gradNorm.toExponential(1)}`
        console.log(`${passed ? 'ok  ' : 'FAIL'} ${seed}: ${found}; ${describe(setup)}`)
        if (!passed || values.only !== undefined) console.log(JSON.stringify({ ours, theirs }))
      } catch (error) {
        failed++
        console.log(`FAIL ${seed}: ${describe(setup)}\n${error instanceof Error ? error.stack : String(error)}`)
      } finally {
        await rm(work, { recursive: true })
      }
    }
  } finally {
    close()
  }
  console.log(
    `${count} set-ups, ${failed} failed; largest difference of loss ${most.loss.toExponential(1)} (allowed ${allowed.loss}), ` +
      `of gradient norm ${most.gradNorm.toExponential(1)} (allowed ${allowed.gradNorm})`,
  )
  if (failed > 0) process.exitCode = 1
}

const python = await findPython()
if (python !== undefined && hasBitsAndBytes(python)) await runAll(python)
