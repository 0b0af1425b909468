import { realpath, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import {
  choiceOf,
  type MeasuringOptions,
  type Quantization,
  type QuantizationOptions,
  type TrainConfig,
} from '../config/index.ts'
import { writeFileAtomic } from '../formats/atomic.ts'
import { findData, fromHub } from '../hub/resolve.ts'
import { baseFor, dayFor, withBase } from '../runs/adapter-base.ts'
import type { ReadOptions } from '../session/read-tokens.ts'
import type { Workload } from '../session/memory-items.ts'
import type { MemoryPlan } from '../session/plan.ts'
import { openSession, type Session } from '../session/session.ts'
import { evaluationWorkload } from '../train/workload.ts'
import { evalBatches, type EvalBatches, exampleLosses } from '../text/batches.ts'
import { placeOf, type DatasetSummary } from '../text/dataset.ts'
import type { DataSource } from '../text/readers/index.ts'
import { evaluateBatches } from '../train/evaluate.ts'
import type { Baseline, EvalResult, EvaluationResult } from '../train/events.ts'
import { LowrankError } from '../util/errors.ts'
import { reported, status, type StatusEvent, type TaskContext } from '../util/task.ts'
import { type MeasuredAnswer, openMeasure, worstFirst } from './measure.ts'
import { readShots, type Shots } from './shots.ts'

type Shared = 'adapter' | 'threads' | 'memory' | 'perDeviceEvalBatchSize' | 'sharePrefixes'

export interface EvaluationConfig
  extends Pick<TrainConfig, Shared>, ReadOptions, QuantizationOptions, MeasuringOptions {
  /** Undefined: what the adapter was trained on. */
  readonly model?: string | undefined
  /** The file of examples. */
  readonly data: string
  /** Whether the base model is evaluated too, without the adapter. */
  readonly baseline?: boolean | undefined
  /** With how many examples of `shotsFrom` before each prompt the base model is evaluated too. */
  readonly shots?: number | undefined
  readonly shotsFrom?: string | undefined
  /** The file that receives a line for each example, the worst first. */
  readonly output?: string | undefined
}

/** What one line of `output` says. */
interface ExampleResult extends Omit<MeasuredAnswer, 'place'> {
  readonly place: string
  /** Nats a label token, and how many there are. */
  readonly loss: number
  readonly labelTokens: number
}

/**
 * Loss, perplexity, token accuracy and metrics of a model, with or without an adapter, on a dataset.
 *
 * @throws LowrankError `model` where the loss is not finite, though all weights are.
 */
export async function* runEvaluation(
  given: EvaluationConfig,
  context: TaskContext,
): AsyncGenerator<StatusEvent, EvaluationResult> {
  const { output, baseline = false } = given
  const named = yield* withBase(given, context)
  const { config } = yield* fromHub(named, context)
  const quantization = yield* baseFor(config)
  const sources = yield* findData(config.data, context)
  const shots = yield* readShots(config, context)
  if (output !== undefined) {
    const read = [...sources, ...(shots?.sources ?? [])].map(({ path }) => path)
    await checkOutput(output, [...read, config.schema, config.metricModule])
  }
  const dated = { ...config, templateDate: await dayFor(config) }
  const parts = { config: dated, named: named.model, sources, quantization, context }
  const compares = baseline || shots !== undefined
  const baselines: Baseline[] = []
  const base = { ...parts, config: { ...dated, adapter: undefined } }
  if (baseline) {
    yield status('the base model')
    const { result } = yield* evaluateOne(base)
    baselines.push({ ...result, shots: 0 })
  }
  if (shots !== undefined) {
    yield status(`the base model, with ${shots.count} examples before each prompt`)
    const { result } = yield* evaluateOne({ ...base, shots })
    baselines.push({ ...result, shots: shots.count })
  }
  if (compares && config.adapter !== undefined) yield status('with the adapter')
  const { result, data, lines } = yield* evaluateOne(parts)
  if (output !== undefined) {
    await writeFileAtomic(
      output,
      worstFirst(lines())
        .map((line) => `${JSON.stringify(line)}\n`)
        .join(''),
    )
    yield status(`${output}: an example a line, the worst first`)
  }
  return { ...result, data, ...(compares ? { baselines } : {}) }
}

interface EvaluationParts {
  readonly config: EvaluationConfig & { readonly model: string }
  /** What the user calls the model. */
  readonly named: string
  readonly sources: readonly DataSource[]
  readonly quantization: Quantization | undefined
  readonly shots?: Shots | undefined
  readonly context: TaskContext
}

interface Evaluated {
  readonly result: EvalResult
  readonly data: DatasetSummary
  /** What became of each example. */
  readonly lines: () => ExampleResult[]
}

/** Evaluates a model once, as it is configured. */
async function* evaluateOne({
  config,
  named,
  sources,
  quantization,
  shots,
  context: { cancelled },
}: EvaluationParts): AsyncGenerator<StatusEvent, Evaluated> {
  const { model, adapter, threads, perDeviceEvalBatchSize: batchSize, memory: bound, output } = config
  await using session = await openSession({ model, adapter, threads, quantization, cancelled })
  const template = await session.template(config)
  if (template?.writesDate === true) yield status(`the chat template writes the date: ${template.day}`)
  const measures = config.metrics !== undefined || config.metricModule !== undefined || output !== undefined
  const reading: ReadOptions = {
    ...config,
    keepSamples: measures,
    // With examples before it a prompt is longer than those of the data.
    ...(shots === undefined ? {} : { prepare: shots.before, maxLength: session.decoder.config.maxPositionEmbeddings }),
  }
  const dataset = yield* reported((report) => session.read(sources, reading, report))
  const { examples, summary } = dataset
  const measure = measures ? yield* openMeasure({ session, dataset, reading, config, model }) : undefined
  session.tokenizer.close()
  const { regimeOf } = session.decoder
  const batches = evalBatches(examples, batchSize, { sharePrefixes: config.sharePrefixes === 'auto', regimeOf })
  const plan = planFor(session, evaluationWorkload(batches, summary), { bound, generates: measure !== undefined })
  const { pipeline, generation } = await session.load(plan)
  const losses = new ExampleLosses(batches, summary)
  const result = await evaluateBatches({ pipeline, batches, cancelled, onLosses: (some, i) => losses.add(some, i) })
  if (!Number.isFinite(result.loss)) throw overflowed([named, adapter], result.loss)
  if (measure === undefined) return { result, data: summary, lines: () => [] }
  const { metrics, confusion, answers } = yield* measure.run(await generation(), cancelled)
  return {
    result: {
      ...result,
      ...(Object.keys(metrics).length === 0 ? {} : { metrics }),
      ...(confusion === undefined ? {} : { confusion }),
    },
    data: summary,
    lines: () => answers.map((answer) => ({ ...answer, ...losses.of(answer.place) })),
  }
}

/**
 * Where tokens are generated one by one, weights that are cast for each of them cost more time than all else: they are expanded once, where
 * there is room. That changes no loss.
 */
function planFor(
  session: Session,
  workload: Workload,
  { bound, generates }: { readonly bound: number | undefined; readonly generates: boolean },
): MemoryPlan {
  const frugal = session.plan(workload, { setting: 'recompute', bound })
  if (!generates || frugal.streamed !== undefined) return frugal
  try {
    const choice = { ...choiceOf(frugal), expandWeights: true }
    return session.plan(workload, { setting: 'recompute', bound, choice })
  } catch (error) {
    if (error instanceof LowrankError && ['config', 'memory'].includes(error.code)) return frugal
    throw error
  }
}

/** The losses of examples, as their batches come. */
class ExampleLosses {
  readonly #batches: EvalBatches
  readonly #summary: DatasetSummary
  readonly #found = new Map<string, { readonly loss: number; readonly labelTokens: number }>()

  constructor(batches: EvalBatches, summary: DatasetSummary) {
    this.#batches = batches
    this.#summary = summary
  }

  /** Takes in those of the label tokens of a batch. */
  add(losses: Float32Array, index: number): void {
    const [batch] = this.#batches.slice(index, index + 1)
    if (batch === undefined) return
    for (const { example, lossSum, labelTokens } of exampleLosses(batch, losses)) {
      this.#found.set(placeOf(example, this.#summary), { loss: lossSum / labelTokens, labelTokens })
    }
  }

  of(place: string): { readonly loss: number; readonly labelTokens: number } {
    return this.#found.get(place) ?? { loss: NaN, labelTokens: 0 }
  }
}

/** Refuses before anything is computed what could not be written afterwards, or would replace what is read. */
async function checkOutput(path: string, read: readonly (string | undefined)[]): Promise<void> {
  const place = (one: string): Promise<string> => realpath(one).catch(() => resolve(one))
  const places = await Promise.all(read.filter((one) => one !== undefined).map(place))
  if (places.includes(await place(path))) {
    throw new LowrankError('config', `output: ${path} is a file that the evaluation reads`, {
      hint: 'Name another one.',
    })
  }
  const folder = await stat(dirname(path)).catch(() => undefined)
  if (folder?.isDirectory() !== true) {
    throw new LowrankError('io', `output: cannot write ${path}: there is no folder ${dirname(path)}`, {
      hint: 'Make it first, or name a file elsewhere.',
    })
  }
  const there = await stat(path).catch(() => undefined)
  if (there !== undefined && !there.isFile()) {
    throw new LowrankError('io', `output: ${path} is no file`, { hint: 'Name a file that receives the results.' })
  }
}

function overflowed(folders: readonly (string | undefined)[], loss: number): LowrankError {
  const named = folders.filter((path) => path !== undefined).join(' with ')
  return new LowrankError(
    'model',
    `the loss is ${loss}: the weights of ${named} are finite, but what they compute is not`,
    {
      hint: 'Some of them are far too large.',
    },
  )
}
