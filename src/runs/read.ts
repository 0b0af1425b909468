import { stat } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import type { Origins } from '../hub/resolve.ts'
import { isJsonObject, readJsonObject, type JsonObject } from '../formats/json.ts'
import { readJsonl } from '../formats/jsonl.ts'
import { metricsName, recordName, type RunRecord } from './record.ts'
import { dataSchema, originsSchema, planSchema, textsSchema, type RecordedData, type RecordedPlan } from './recorded.ts'
import { costOf, costOfBest, criterionOf, valueIn } from '../train/criterion.ts'
import type { BestEvaluation } from '../train/events.ts'
import type { RunInputs } from './run-inputs.ts'

const texts = textsSchema.catch({})

/** The steps of a run, a place each; a value that is no number (a loss that overflowed) is NaN. */
export interface StepColumns {
  readonly step: number[]
  readonly loss: number[]
  readonly learningRate: number[]
  readonly gradNorm: number[]
  readonly tokensPerSecond: number[]
  /** Bytes. */
  readonly memory: number[]
}

interface Evaluation {
  readonly step: number
  readonly loss: number
  readonly perplexity: number
  readonly tokenAccuracy: number
  /** What metrics of answers came to, by their names. */
  readonly metrics: Readonly<Record<string, number>>
}

/** Something to look at: a warning, a spike, a notice. */
export interface Notice {
  readonly step: number | undefined
  readonly kind: string
  readonly text: string
}

/** A prompt with its completions before and after training. */
export interface Sample {
  readonly prompt: string
  readonly expected: string
  readonly before: string | undefined
  readonly after: string | undefined
}

/** What a run came to, or has come to so far. Losses in nats a label token, memory in bytes. */
export interface Figures {
  readonly steps: number
  readonly plannedSteps: number | undefined
  /** Mean of all step losses. */
  readonly trainLoss: number | undefined
  /** The evaluation that decided which weights are best: by its loss, or by `metricForBestModel`. */
  readonly best: BestEvaluation | undefined
  readonly lastEval: Evaluation | undefined
  readonly seconds: number | undefined
  readonly peakMemory: number | undefined
  /** Positions computed a second of training, padding included. */
  readonly tokensPerSecond: number | undefined
}

/** A run as its files describe it. */
export interface Run {
  readonly folder: string
  readonly name: string
  readonly status: RunRecord['status']
  /** ISO 8601; empty where it is not known. */
  readonly startedAt: string
  /** When it last wrote an event; ISO 8601. */
  readonly lastSign: string
  readonly config: JsonObject
  readonly versions: RunInputs['versions']
  readonly hashes: RunInputs['hashes']
  /** The commits of what is from the hub. */
  readonly origins: Origins
  readonly steps: StepColumns
  readonly evals: readonly Evaluation[]
  readonly notices: readonly Notice[]
  readonly samples: readonly Sample[]
  readonly data: RecordedData | undefined
  readonly plan: RecordedPlan | undefined
  readonly figures: Figures
  /** Why it ended early, if it did. */
  readonly ended: string | undefined
}

/**
 * Reads `run.json` and `metrics.jsonl` of a run, also of one that goes on or was killed. Lines that another version wrote, or half
 * of a line, are passed over.
 *
 * @throws LowrankError `data` where there is no run.
 */
export async function readRun(folder: string): Promise<Run> {
  const record = await readJsonObject(join(folder, recordName), {
    code: 'data',
    hint: 'A run is the output folder of a training, which has a run.json.',
  })
  const metrics = join(folder, metricsName)
  const written = await stat(metrics).catch(() => undefined)
  const gathered = new Gathered()
  if (written !== undefined) {
    for await (const line of readJsonl(metrics)) {
      if ('value' in line && isJsonObject(line.value)) gathered.add(line.value)
    }
  }
  const status = STATUS.find((one) => one === record['status']) ?? 'failed'
  const startedAt = dateOf(record['startedAt'])
  return {
    folder,
    name: basename(resolve(folder)),
    status,
    startedAt: startedAt?.toISOString() ?? '',
    lastSign: (written?.mtime ?? startedAt ?? new Date(0)).toISOString(),
    config: objectOf(record['config']),
    versions: texts.parse(record['versions']),
    hashes: texts.parse(record['hashes']),
    origins: originsSchema.parse(record['origins']),
    steps: gathered.steps,
    evals: gathered.evals,
    notices: gathered.notices,
    samples: gathered.samples(),
    data: gathered.data,
    plan: gathered.plan,
    figures: figuresOf(record, gathered),
    ended:
      status === 'failed' || status === 'cancelled'
        ? text(record['result'])?.replace(/^\w*Error: /, '')
        : gathered.stoppedEarly,
  }
}

const STATUS = ['running', 'done', 'cancelled', 'failed'] as const

/** What the events of a run say, as far as a report shows it. */
class Gathered {
  readonly steps: StepColumns = {
    step: [],
    loss: [],
    learningRate: [],
    gradNorm: [],
    tokensPerSecond: [],
    memory: [],
  }
  readonly evals: Evaluation[] = []
  readonly notices: Notice[] = []
  data: Run['data']
  plan: Run['plan']
  stoppedEarly: string | undefined
  computed = { tokens: 0, seconds: 0 }
  readonly #before: Completed[] = []
  readonly #after: Completed[] = []

  add(event: JsonObject): void {
    const step = finite(event['step'])
    switch (event['type']) {
      case 'step':
        this.#step(step, event)
        break
      case 'eval':
        this.evals.push({
          step: step ?? 0,
          loss: finite(event['loss']) ?? NaN,
          perplexity: finite(event['perplexity']) ?? NaN,
          tokenAccuracy: finite(event['tokenAccuracy']) ?? NaN,
          metrics: numbersOf(event['metrics']),
        })
        break
      case 'warning':
        this.notices.push({ step, kind: 'warning', text: text(event['message']) ?? '' })
        break
      case 'spike':
        this.notices.push({ step, kind: 'spike', text: spikeText(event) })
        break
      case 'overfitting':
        this.notices.push({ step, kind: 'overfitting', text: overfittingText(event) })
        break
      case 'sample':
        this.#sample(event)
        break
      case 'data':
        this.data = dataSchema.safeParse(event).data ?? this.data
        break
      case 'plan':
        this.plan = planSchema.safeParse(event).data ?? this.plan
        break
      case 'done':
        if (isJsonObject(event['stoppedEarly'])) this.stoppedEarly = text(event['stoppedEarly']['reason'])
        break
      default:
    }
  }

  /** The n-th completion before training belongs to the n-th after it. */
  samples(): Sample[] {
    const known = this.#before.length >= this.#after.length ? this.#before : this.#after
    return known.map(({ prompt, expected }, index) => ({
      prompt,
      expected,
      before: this.#before[index]?.completion,
      after: this.#after[index]?.completion,
    }))
  }

  #step(step: number | undefined, event: JsonObject): void {
    if (step === undefined) return
    const { steps } = this
    const columns = Object.values(steps) as number[][]
    // A run that was resumed repeats the steps since its checkpoint.
    while ((steps.step.at(-1) ?? -Infinity) >= step) for (const column of columns) column.pop()
    steps.step.push(step)
    steps.loss.push(finite(event['loss']) ?? NaN)
    steps.learningRate.push(finite(event['learningRate']) ?? NaN)
    steps.gradNorm.push(finite(event['gradNorm']) ?? NaN)
    steps.tokensPerSecond.push(finite(event['tokensPerSecond']) ?? NaN)
    steps.memory.push(finite(event['memory']) ?? NaN)
    this.computed.tokens += finite(event['tokens']) ?? 0
    this.computed.seconds += finite(event['seconds']) ?? 0
  }

  #sample(event: JsonObject): void {
    const [prompt, completion, expected] = ['prompt', 'completion', 'expected'].map((key) => text(event[key]) ?? '')
    const sample = { prompt: prompt!, completion: completion!, expected: expected! }
    if (event['when'] === 'after') this.#after.push(sample)
    // A run that was resumed may complete them once more, from weights that are no longer those before training.
    else if (this.steps.step.length === 0) this.#before.push(sample)
  }
}

type Completed = Omit<Sample, 'before' | 'after'> & { readonly completion: string }

function figuresOf(record: JsonObject, { steps, evals, plan, computed }: Gathered): Figures {
  const result = objectOf(record['result'])
  const losses = steps.loss.filter((loss) => !Number.isNaN(loss))
  const memory = steps.memory.reduce((most, bytes) => (bytes > most ? bytes : most), 0)
  return {
    steps: steps.step.at(-1) ?? finite(result['steps']) ?? 0,
    plannedSteps: plan?.steps,
    trainLoss:
      finite(result['trainLoss']) ??
      (losses.length === 0 ? undefined : losses.reduce((sum, loss) => sum + loss, 0) / losses.length),
    best: bestOf(evals, objectOf(record['config'])),
    lastEval: evals.at(-1),
    seconds: finite(record['seconds']) ?? (computed.seconds > 0 ? computed.seconds : undefined),
    peakMemory: finite(record['peakMemory']) ?? (memory > 0 ? memory : undefined),
    tokensPerSecond: computed.seconds > 0 ? computed.tokens / computed.seconds : undefined,
  }
}

/** The best evaluation by what the run was asked to decide by; of several, the first. */
function bestOf(evals: readonly Evaluation[], config: JsonObject): BestEvaluation | undefined {
  const greaterIsBetter = typeof config['greaterIsBetter'] === 'boolean' ? config['greaterIsBetter'] : undefined
  const criterion = criterionOf({ metricForBestModel: text(config['metricForBestModel']), greaterIsBetter })
  const { name } = criterion
  return evals.reduce<BestEvaluation | undefined>((best, one) => {
    const value = valueIn(criterion, one)
    if (!(costOf(criterion, value) < costOfBest(criterion, best))) return best
    return { step: one.step, loss: one.loss, ...(name === 'loss' ? {} : { metric: { name, value } }) }
  }, undefined)
}

function spikeText(event: JsonObject): string {
  const what = event['kind'] === 'gradNorm' ? 'gradient norm' : event['kind'] === 'nan' ? 'loss or gradient' : 'loss'
  const value = finite(event['value'])
  const limit = finite(objectOf(event['expected'])['limit'])
  const lines = Array.isArray(event['lines']) ? event['lines'].filter((line) => typeof line === 'number') : []
  const action = { skip: ', update skipped', stop: ', run stopped' }[text(event['action']) ?? '']
  return [
    `${what} ${value === undefined ? 'is not a number' : value.toPrecision(4)}`,
    limit === undefined ? '' : ` where at most ${limit.toPrecision(4)} was expected`,
    action ?? '',
    lines.length === 0 ? '' : `; lines ${lines.slice(0, 8).join(', ')}${lines.length > 8 ? ', …' : ''} of the data`,
    event['remedy'] === undefined ? '' : `. ${text(event['remedy'])}`,
  ].join('')
}

function overfittingText(event: JsonObject): string {
  const best = objectOf(event['best'])
  const [loss, lowest, at] = [finite(event['evalLoss']), finite(best['evalLoss']), finite(best['step'])]
  const rise =
    loss === undefined || lowest === undefined
      ? 'the evaluation loss rises while the training loss falls'
      : `the evaluation loss is ${loss.toPrecision(4)}, after ${lowest.toPrecision(4)} at step ${at}, while the training loss falls`
  return `${rise}. ${text(event['remedy']) ?? ''}`.trim()
}

function finite(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined
}

function numbersOf(value: unknown): Record<string, number> {
  const found = Object.entries(objectOf(value)).map(([key, one]) => [key, finite(one)] as const)
  return Object.fromEntries(found.filter((one): one is [string, number] => one[1] !== undefined))
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

function dateOf(value: unknown): Date | undefined {
  const date = new Date(text(value) ?? NaN)
  return Number.isNaN(date.getTime()) ? undefined : date
}

function objectOf(value: unknown): JsonObject {
  return isJsonObject(value) ? value : {}
}
