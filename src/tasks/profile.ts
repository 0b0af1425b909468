import { performance } from 'node:perf_hooks'
import type { TrainConfig } from '../config/index.ts'
import {
  isProduct,
  type OpProfile,
  type ProgramProfile,
  RuntimeProfile,
  sumOps,
} from '../engine/onnxruntime/profile.ts'
import { productRate } from '../engine/product-rate.ts'
import { fromHub } from '../hub/resolve.ts'
import { linearSpecs } from '../model/weight-specs.ts'
import { readData } from '../session/data.ts'
import { pickPrecision } from '../session/precision.ts'
import { sessionOf } from '../session/session.ts'
import { startTraining, trainStep, type Training } from '../train/trainer.ts'
import { workloadOf } from '../train/workload.ts'
import { LowrankError } from '../util/errors.ts'
import { reported, status, type StatusEvent, type TaskContext } from '../util/task.ts'
import { findDataFiles } from './find-data.ts'

/** A training run of which some steps are measured; nothing of it is written. */
export type ProfileConfig = Omit<TrainConfig, 'outputDir'> & {
  readonly outputDir?: string | undefined
  /** Steps that are measured, after one that is not. */
  readonly profileSteps: number
}

/** Where the time of a step goes. All seconds are those of a step, the mean of those measured. */
export interface ProfileResult {
  readonly steps: number
  readonly threads: number
  readonly activations: 'keep' | 'recompute'
  /** Positions of a step, padding included, and its micro-batches. */
  readonly tokens: number
  readonly seconds: number
  /** What the step is made of; the sum is `seconds`. */
  readonly parts: readonly ProfilePart[]
  readonly products: {
    /** Floating point operations, those of a product that is computed again included. */
    readonly flops: number
    /** Operations a second that they ran at. */
    readonly rate: number
    /** The best rate of products in f32 on this machine, in a process of these many threads. */
    readonly limit: number
    /** What the step would take if all of it were products at that rate, as a share of `seconds`. */
    readonly share: number
  }
  readonly programs: readonly ProfiledProgram[]
  /** By type of node, most seconds first. */
  readonly ops: readonly OpProfile[]
}

/** A part of a step, in words. */
export interface ProfilePart {
  readonly what: string
  readonly seconds: number
}

export interface ProfiledProgram {
  readonly name: string
  /** In a step. */
  readonly runs: number
  readonly seconds: number
  /** Of these, in matrix products. */
  readonly productSeconds: number
}

/**
 * Takes some steps of a training run, and says where their time goes: recording each node takes some microseconds, so that steps are slower
 * than without.
 *
 * @throws LowrankError `config`, `data`, `model`, `memory`: as for training; `cancelled`.
 */
export async function* runProfile(
  given: ProfileConfig,
  { cancelled }: TaskContext,
): AsyncGenerator<StatusEvent, ProfileResult> {
  const { config: found } = yield* fromHub(given, { cancelled })
  const config = { ...found, outputDir: found.outputDir ?? '' }
  const files = yield* findDataFiles(config, { cancelled })
  yield status(`reading ${given.train}`)
  const profile = await RuntimeProfile.create()
  try {
    await using session = await sessionOf(config, cancelled)
    const data = yield* reported((report) => readData(session, files, config, report))
    session.tokenizer.close()
    const workload = workloadOf(config, data, session.decoder.regimeOf)
    const { matmulPrecision } = await pickPrecision(config.matmulPrecision, session.decoder)
    const plan = session.plan(workload, { setting: config.activations, bound: config.memory, matmulPrecision })
    yield status(`loading ${given.model}`)
    const model = await session.load(plan, { profile })
    const base = session.decoder.quantization
    const training = startTraining({ ...model, config, base, examples: data.train.examples })
    const wanted = 1 + config.profileSteps
    if (training.steps < wanted) {
      throw new LowrankError(
        'config',
        `${wanted} steps are needed to measure ${config.profileSteps}: this run takes ${training.steps}`,
        {
          hint: 'Set "profileSteps" (--profile-steps) lower, or "maxSteps" higher.',
        },
      )
    }
    yield status(`taking ${wanted} steps, the first to warm up`)
    const measured = await measure(training, { profile, steps: config.profileSteps, cancelled })
    const programs = await profile.read()
    yield status('measuring the rate of matrix products')
    const { threads } = session.decoder
    const rows = Math.ceil(measured.tokens / measured.microBatches)
    const limit = await productRate(linearSpecs(session.decoder.config), { rows, threads })
    return {
      steps: config.profileSteps,
      threads,
      activations: plan.activations,
      ...summary(measured, programs, limit),
    }
  } finally {
    await profile.close()
  }
}

/** Totals of the steps measured. */
interface Measured {
  readonly steps: number
  readonly seconds: number
  readonly optimizerSeconds: number
  readonly tokens: number
  readonly microBatches: number
}

async function measure(
  training: Training,
  options: { readonly profile: RuntimeProfile; readonly steps: number; readonly cancelled: () => boolean },
): Promise<Measured> {
  const { profile, steps, cancelled } = options
  let [optimizerSeconds, microBatches, tokens] = [0, 0, 0]
  const { optimizer } = training
  const timed: Training = {
    ...training,
    optimizer: Object.assign(Object.create(optimizer) as typeof optimizer, {
      step: (...args: Parameters<typeof optimizer.step>) => {
        const begun = performance.now()
        optimizer.step(...args)
        optimizerSeconds += (performance.now() - begun) / 1000
      },
    }),
  }
  await trainStep(timed, { cancelled })
  profile.start()
  optimizerSeconds = 0
  const begun = performance.now()
  for (let i = 0; i < steps; i++) {
    const found = await trainStep(timed, { cancelled, onLosses: () => void microBatches++ })
    tokens += found.tokens
  }
  return { steps, seconds: (performance.now() - begun) / 1000, optimizerSeconds, tokens, microBatches }
}

type Summary = Pick<ProfileResult, 'tokens' | 'seconds' | 'parts' | 'products' | 'programs' | 'ops'>

function summary(
  { steps, seconds, optimizerSeconds, tokens }: Measured,
  programs: readonly ProgramProfile[],
  limit: number,
): Summary {
  const ops = sumOps(programs.flatMap((program) => program.ops)).map((op) => perStep(op, steps))
  const total = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0)
  const running = total(programs.map((program) => program.seconds)) / steps
  const inside = total(programs.map((program) => program.insideSeconds)) / steps
  const nodes = total(ops.map((op) => op.seconds))
  const products = ops.filter(({ op }) => isProduct(op))
  const [productSeconds, flops] = [total(products.map((op) => op.seconds)), total(products.map((op) => op.flops))]
  const kinds = new Map<string, number>()
  for (const { op, seconds: own } of ops) if (!isProduct(op)) kinds.set(kindOf(op), (kinds.get(kindOf(op)) ?? 0) + own)
  const optimizer = optimizerSeconds / steps
  const whole = seconds / steps
  const parts = [
    { what: 'matrix products', seconds: productSeconds },
    ...[...kinds].map(([what, own]) => ({ what, seconds: own })),
    { what: 'between nodes: threads that wait, recording', seconds: inside - nodes },
    { what: 'into and out of ONNX Runtime: checks and copies of results', seconds: running - inside },
    { what: 'optimizer', seconds: optimizer },
    { what: 'masks, dropout, embedding and sums of gradients', seconds: whole - running - optimizer },
  ].toSorted((one, other) => other.seconds - one.seconds)
  const named = programs.map((program) => ({
    name: program.name,
    runs: program.runs / steps,
    seconds: program.seconds / steps,
    productSeconds: total(program.ops.filter(({ op }) => isProduct(op)).map((op) => op.seconds)) / steps,
  }))
  return {
    tokens: tokens / steps,
    seconds: whole,
    parts,
    products: { flops, rate: flops / productSeconds, limit, share: flops / limit / whole },
    programs: sumPrograms(named).toSorted((one, other) => other.seconds - one.seconds),
    ops,
  }
}

/** Blocks of different kinds have programs of one name. */
function sumPrograms(programs: readonly ProfiledProgram[]): ProfiledProgram[] {
  const sums = new Map<string, ProfiledProgram>()
  for (const { name, runs, seconds, productSeconds } of programs) {
    const sum = sums.get(name) ?? { name, runs: 0, seconds: 0, productSeconds: 0 }
    sums.set(name, {
      name,
      runs: sum.runs + runs,
      seconds: sum.seconds + seconds,
      productSeconds: sum.productSeconds + productSeconds,
    })
  }
  return [...sums.values()]
}

function perStep({ op, nodes, seconds, flops }: OpProfile, steps: number): OpProfile {
  return { op, nodes: nodes / steps, seconds: seconds / steps, flops: flops / steps }
}

/** What nodes that are no products do. */
const kinds: Readonly<Record<string, readonly string[]>> = {
  softmax: ['Softmax'],
  'norms and sums': ['SimplifiedLayerNormalization', 'ReduceSum', 'ReduceMean', 'ReduceMax', 'ReduceLogSumExp'],
  'moving values: transpose, concat, split, gather': [
    'Transpose',
    'Concat',
    'Split',
    'Slice',
    'Gather',
    'GatherElements',
    'GatherND',
    'Scatter',
    'ScatterElements',
    'ScatterND',
    'Reshape',
    'Expand',
  ],
  'casts and unpacking': [
    'Cast',
    'BitCast',
    'DequantizeLinear',
    'QuantizeLinear',
    'BitShift',
    'BitwiseAnd',
    'BitwiseOr',
  ],
  'rotary embedding': ['RotaryEmbedding'],
}

function kindOf(op: string): string {
  return Object.keys(kinds).find((kind) => kinds[kind]?.includes(op) === true) ?? 'elementwise'
}
