import { quantizationOf } from '../config/index.ts'
import { availableMemory, defaultThreads } from '../engine/machine.ts'
import { adapterFromHub, headersFromHub } from '../hub/resolve.ts'
import { openTensors } from '../model/sources/checkpoint.ts'
import type { WeightSource } from '../model/sources/source.ts'
import { gpuFormula } from '../plan/gpu.ts'
import { configOf, type PlanMethod } from '../plan/methods.ts'
import { cheapest, type Prices, readPrices } from '../plan/prices.ts'
import { recommend } from '../plan/recommend.ts'
import type { PlannedVariant, PlanResult } from '../plan/result.ts'
import { StepTimer } from '../plan/time.ts'
import { MethodPlan } from '../plan/variants.ts'
import { workAssumed, workOfData, type PlannedWork, type RunConfig } from '../plan/workload.ts'
import { PreparedDecoder } from '../session/decoder.ts'
import { readData } from '../session/data.ts'
import { shareOfFree } from '../session/plan.ts'
import { pickPrecision } from '../session/precision.ts'
import { openSession } from '../session/session.ts'
import { LowrankError } from '../util/errors.ts'
import { elements } from '../util/shape.ts'
import { reported, status, type StatusEvent, type TaskContext } from '../util/task.ts'
import { findDataFiles } from './find-data.ts'

/** Options of training, of which data and output folder may be left out, and what is asked of them. */
export type PlanConfig = RunConfig & {
  readonly train?: string | undefined
  readonly outputDir?: string | undefined
  readonly methods: readonly PlanMethod[]
  readonly ram?: number | undefined
  readonly gpu?: number | undefined
  readonly examples?: number | undefined
  readonly probe: boolean
  readonly stepSeconds?: number | undefined
  readonly pricePerHour?: number | undefined
  readonly prices?: string | undefined
  readonly deploy?: 'adapters' | 'model' | undefined
  readonly learns: 'task' | 'tokens' | 'architecture'
}

/** Seconds that measuring this machine may take, about. */
const probeSeconds = 10

/** Opens the weights of a base model where they are not those in its folder. */
type OpenSource = (() => Promise<WeightSource>) | undefined

/**
 * What training a model takes, method by method, before anything is downloaded or trained: of the model nothing is read but its
 * configuration and the headers of its files.
 *
 * @throws LowrankError `config`, `data`, `model`, `io`: as for training; `cancelled`.
 */
export async function* runPlan(given: PlanConfig, context: TaskContext): AsyncGenerator<StatusEvent, PlanResult> {
  const { gpu, ram, memory, pricePerHour } = given
  const needsList = given.prices !== undefined || pricePerHour === undefined
  const prices = needsList ? await readPrices(given.prices) : undefined
  const { folder, checkpoint } = yield* headersFromHub(given.model, context)
  const adapter = given.adapter === undefined ? undefined : yield* adapterFromHub(given.adapter, context)
  const config = { ...given, model: folder, adapter: adapter?.folder }
  const source: OpenSource = checkpoint && (async () => openTensors(folder, await checkpoint(), { headersOnly: true }))
  const work = yield* readWork(config, source, context)
  const budget = gpu ?? ram ?? memory ?? shareOfFree * availableMemory()
  const kind = gpu === undefined ? 'ram' : 'gpu'
  const { prepared, refused } = await prepareAll(config, source)
  try {
    yield status('planning')
    const measures = given.probe && kind === 'ram' && given.stepSeconds === undefined
    const setting = measures || config.matmulPrecision === 'high' ? config.matmulPrecision : 'highest'
    const plans: MethodPlan[] = []
    for (const [method, decoder] of prepared) {
      const { matmulPrecision } = await pickPrecision(kind === 'ram' ? setting : 'highest', decoder)
      plans.push(new MethodPlan(method, { decoder, config, work, budget, kind, matmulPrecision }))
    }
    let variants = plans.flatMap((plan) => plan.variants)
    if (given.stepSeconds !== undefined) {
      const stepSeconds = given.stepSeconds
      variants = variants.map((variant) => ({ ...variant, time: { stepSeconds } }))
    } else if (measures) {
      yield status('measuring how fast this machine computes the programs of the model')
      variants = await timeAll(plans, config.threads ?? defaultThreads())
    }
    const charge = { kind, pricePerHour, prices } as const
    variants = variants.map((variant) => priced(overAll(variant, work.steps), charge))
    const { steps, examples, tokens, longest } = work
    return {
      model: given.model,
      ...aboutModel(prepared),
      machine: {
        kind,
        bytes: budget,
        given: (gpu ?? ram ?? memory) !== undefined,
        ...(kind === 'gpu' ? { formula: gpuFormula } : {}),
      },
      work: {
        steps,
        examples,
        tokens,
        longest,
        batch: config.perDeviceTrainBatchSize,
        accumulation: config.gradientAccumulationSteps,
      },
      variants,
      refused,
      recommendation: recommend(variants, budget, { deploy: given.deploy, learns: given.learns }),
      ...(prices === undefined ? {} : { prices: { date: prices.date, source: prices.source } }),
    }
  } finally {
    for (const decoder of prepared.values()) await decoder.close()
  }
}

/** The data as training reads it, or what is assumed of it. */
async function* readWork(
  config: PlanConfig,
  source: OpenSource,
  context: TaskContext,
): AsyncGenerator<StatusEvent, PlannedWork> {
  const { train } = config
  if (train === undefined) return workAssumed(config, config.examples)
  const files = yield* findDataFiles({ train, valid: config.valid }, context)
  yield status(`reading ${train}`)
  const { model } = config
  await using session = await openSession({ model, source: await source?.(), cancelled: context.cancelled })
  const data = yield* reported((report) => readData(session, files, { ...config, train }, report))
  return workOfData(config, data, session.decoder.regimeOf)
}

/** The model as each method would open it. What this model does not allow is refused by itself, unless nothing else was asked for. */
async function prepareAll(
  config: PlanConfig,
  source: OpenSource,
): Promise<{ prepared: ReadonlyMap<PlanMethod, PreparedDecoder>; refused: PlanResult['refused'] }> {
  const prepared = new Map<PlanMethod, PreparedDecoder>()
  const refused: { method: PlanMethod; why: string }[] = []
  try {
    for (const method of config.methods) {
      try {
        prepared.set(method, await prepare(configOf(config, method), await source?.()))
      } catch (error) {
        if (!(error instanceof LowrankError && error.code === 'config') || config.methods.length === 1) throw error
        refused.push({ method, why: error.message })
      }
    }
    return { prepared, refused }
  } catch (error) {
    for (const decoder of prepared.values()) await decoder.close()
    throw error
  }
}

function prepare(config: RunConfig, source: WeightSource | undefined): Promise<PreparedDecoder> {
  const { model, adapter, threads, method, init, seed, labelSmoothingFactor: labelSmoothing } = config
  const training = { lora: method === 'full' ? undefined : config, init, seed, labelSmoothing }
  return PreparedDecoder.open({ model, source, adapter, threads, quantization: quantizationOf(config), training })
}

async function timeAll(plans: readonly MethodPlan[], threads: number): Promise<PlannedVariant[]> {
  const timer = new StepTimer({ threads, seconds: probeSeconds })
  try {
    const variants: PlannedVariant[] = []
    for (const plan of plans) variants.push(...(await plan.timed(timer)))
    return variants
  } finally {
    await timer.close()
  }
}

/** The time of all steps, where it is known how many there are. */
function overAll(variant: PlannedVariant, steps: number | undefined): PlannedVariant {
  const { time } = variant
  if (time === undefined || steps === undefined) return variant
  return { ...variant, time: { ...time, seconds: steps * time.stepSeconds } }
}

interface Charge {
  readonly kind: 'ram' | 'gpu'
  readonly pricePerHour: number | undefined
  readonly prices: Prices | undefined
}

function priced(variant: PlannedVariant, { kind, pricePerHour, prices }: Charge): PlannedVariant {
  const { time, memory } = variant
  if (time?.seconds === undefined) return variant
  const machine = pricePerHour === undefined && prices ? cheapest(prices, memory.expected, kind) : undefined
  const perHour = pricePerHour ?? machine?.perHour
  if (perHour === undefined) return variant
  const amount = (perHour * time.seconds) / 3600
  const currency = pricePerHour === undefined ? (prices?.currency ?? '') : ''
  return {
    ...variant,
    cost: { amount, currency, perHour, ...(machine === undefined ? {} : { machine: machine.name }) },
  }
}

/** What the model is, as one of the methods opened it. */
function aboutModel(prepared: ReadonlyMap<PlanMethod, PreparedDecoder>): Pick<PlanResult, 'modelType' | 'parameters'> {
  const [decoder] = prepared.values()
  if (decoder === undefined) throw new LowrankError('config', 'none of the methods asked for can train this model')
  const parameters = decoder.specs.reduce((total, { shape }) => total + elements(shape), 0)
  return { modelType: decoder.config.modelType, parameters }
}
