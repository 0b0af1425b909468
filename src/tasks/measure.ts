import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { MeasuringOptions } from '../config/index.ts'
import type { LoadedAdapter } from '../engine/cached/adapters.ts'
import type { CachedDecoder } from '../engine/cached/cached-decoder.ts'
import { readJsonObject } from '../formats/json.ts'
import { modelDefaults } from '../generate/defaults.ts'
import { logLikelihoods } from '../generate/continuations.ts'
import { Generator, type GenerateRequest } from '../generate/generator.ts'
import { PrefixCache } from '../generate/prefix-cache.ts'
import {
  type Answer,
  type Confusion,
  confusionFor,
  metricOf,
  type MetricSettings,
  ownMetric,
} from '../metrics/index.ts'
import type { ReadOptions } from '../session/read-tokens.ts'
import type { Session } from '../session/session.ts'
import type { Dataset } from '../text/dataset.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { internalError, LowrankError, messageOf } from '../util/errors.ts'
import { plural } from '../util/format.ts'
import { status, type StatusEvent } from '../util/task.ts'
import { askedOfAll, type Questions } from './questions.ts'

/** What metrics came to. */
export interface Measurement {
  /** By their names in results, see `metricValues`. */
  readonly metrics: Readonly<Record<string, number>>
  /** Of a classification. */
  readonly confusion: Confusion | undefined
  /** In the order of the questions. */
  readonly answers: readonly MeasuredAnswer[]
}

/** An answer, and what metrics say of it alone. */
export interface MeasuredAnswer extends Answer {
  readonly place: string
  readonly metrics: Readonly<Record<string, number>>
  /** Of each label, the logarithm of its probability in nats, where labels were scored. */
  readonly labelScores?: Readonly<Record<string, number>> | undefined
}

/** A model that can be asked. */
interface Asked {
  readonly decoder: CachedDecoder
  readonly adapter: LoadedAdapter | undefined
}

type OwnMetric = (prompt: string, completion: string, expected: string) => unknown

export interface OpenMeasureOptions {
  readonly config: MeasuringOptions
  readonly session: Session
  /** Folder of the model. */
  readonly model: string
  /** Read with these options, `keepSamples` among them. */
  readonly dataset: Dataset
  readonly reading: ReadOptions
  /** Most examples that are measured, from the first; all by default. */
  readonly limit?: number | undefined
}

interface MeasureParts extends Questions {
  readonly config: MeasuringOptions
  readonly tokenizer: Tokenizer
  /** Tokens that end an answer. */
  readonly endIds: ReadonlySet<number>
}

/** Bytes that what is remembered of answers in the making may take: few beside a model, and no plan of a run counts them. */
const mostCache = 2 ** 28

/** Milliseconds between two messages of how far it is. */
const pause = 10_000

/**
 * Reads what metrics need (the schema, the user's own module), and makes questions of examples.
 *
 * @throws LowrankError `config`: it is no schema, or no such module; `data`: an example asks nothing.
 */
export async function* openMeasure({
  config,
  session,
  model,
  dataset,
  reading,
  limit,
}: OpenMeasureOptions): AsyncGenerator<StatusEvent, Measure> {
  const { tokenizer } = session
  const isValid = await readSchema(config.schema)
  const own = config.metricModule === undefined ? undefined : await importMetric(config.metricModule)
  const encoder = await session.encoder(reading)
  const asked = { ...config, trainOnInputs: reading.trainOnInputs }
  const found = await askedOfAll({ config: asked, dataset, encoder, tokenizer, limit })
  if (found.cut > 0) {
    yield status(`${plural(found.cut, 'example')} longer than maxLength (${reading.maxLength}): metrics leave them out`)
  }
  const { endIds } = await modelDefaults(model)
  const { endOfTurnId } = encoder
  const ends = new Set([tokenizer.eosId, ...endIds, ...(endOfTurnId === undefined ? [] : [endOfTurnId])])
  const settings = { labels: found.labels, isValid }
  return new Measure({ ...found, config, tokenizer, endIds: ends }, settings, own)
}

/** Asks a model, as often as that is wanted, the same questions, and measures its answers. */
export class Measure {
  readonly #o: MeasureParts
  readonly #settings: MetricSettings
  readonly #own: OwnMetric | undefined

  /** Use `openMeasure`. */
  constructor(parts: MeasureParts, settings: MetricSettings, own: OwnMetric | undefined) {
    this.#o = parts
    this.#settings = settings
    this.#own = own
  }

  /** @throws LowrankError `model`: its weights give no numbers; `config`: the user's own metric fails; `cancelled`. */
  async *run(model: Asked, cancelled: () => boolean): AsyncGenerator<StatusEvent, Measurement> {
    const { questions, labels, config } = this.#o
    const { metrics = [], classify } = config
    const classifies = metrics.some((name) => metricOf(name).needs === 'label')
    const generates =
      this.#own !== undefined ||
      (classifies && classify === 'generate') ||
      metrics.some((name) => metricOf(name).needs === 'completion')
    const scores = classifies && classify === 'likelihood' ? yield* this.#scores(model, cancelled) : undefined
    const completions = generates ? yield* this.#completions(model, cancelled) : undefined
    const answers: MeasuredAnswer[] = []
    for (const [i, { place, prompt, expected }] of questions.entries()) {
      const [completion, own] = [completions?.[i], scores?.[i]]
      const predicted = !classifies ? undefined : own === undefined ? completion?.trim() : likeliest(labels, own)
      const labelScores = own && Object.fromEntries(labels.map((label, n) => [label, own[n]!]))
      const answer: Answer = { prompt, expected, completion, predicted }
      answers.push({ place, ...answer, labelScores, metrics: await this.#of(answer, place) })
    }
    const over = metrics.map((name) => metricOf(name).over(answers, this.#settings))
    const mean = answers.reduce((total, one) => total + (one.metrics[ownMetric] ?? 0), 0) / answers.length
    return {
      metrics: Object.assign(
        {},
        ...over,
        this.#own === undefined ? {} : { [ownMetric]: mean },
      ) as Measurement['metrics'],
      confusion: classifies ? confusionFor(answers, labels) : undefined,
      answers,
    }
  }

  /** The log-likelihoods of the labels, for each question. */
  async *#scores({ decoder, adapter }: Asked, cancelled: () => boolean): AsyncGenerator<StatusEvent, number[][]> {
    const { questions } = this.#o
    const scores: number[][] = []
    const progress = this.#progress('scoring labels')
    // Instructions and examples that all prompts begin with are computed once.
    const prefixes = new PrefixCache(mostCache / 4)
    for (const { labels } of questions) {
      if (labels === undefined) throw internalError('a question whose labels are to be scored has none')
      scores.push(await logLikelihoods(decoder, { ...labels, adapter }, { cancelled, prefixes }))
      yield* progress(scores.length)
    }
    return scores
  }

  /** What a model generates behind each prompt, greedily. */
  async *#completions({ decoder, adapter }: Asked, cancelled: () => boolean): AsyncGenerator<StatusEvent, string[]> {
    const { questions, config, tokenizer, endIds } = this.#o
    const requests = questions.map(({ ids }): GenerateRequest => {
      return { ids, adapter, maxNewTokens: config.maxNewTokens, sampling: { doSample: false }, seed: 0, endIds }
    })
    const made: number[][] = questions.map(() => [])
    const progress = this.#progress('generating answers')
    let done = 0
    const generator = new Generator(decoder, tokenizer, limitsFor(decoder, requests))
    for await (const { index, id, finish } of generator.generate(requests, cancelled)) {
      if (finish !== 'eos') made[index]!.push(id)
      if (finish !== undefined) yield* progress(++done)
    }
    if (cancelled()) throw new LowrankError('cancelled', 'the evaluation was cancelled')
    return tokenizer.decode(made)
  }

  async #of(answer: Answer, place: string): Promise<Record<string, number>> {
    const { metrics = [] } = this.#o.config
    const found = metrics.map((name) => metricOf(name).of?.(answer, this.#settings) ?? {})
    const own = this.#own === undefined ? {} : { [ownMetric]: await measuredBy(this.#own, answer, place) }
    return Object.assign({}, ...found, own) as Record<string, number>
  }

  #progress(what: string): (done: number) => Iterable<StatusEvent> {
    const { questions } = this.#o
    let told = performance.now()
    return function* (done) {
      if (performance.now() - told < pause) return
      told = performance.now()
      yield status(`${what}: ${done} of ${plural(questions.length, 'example')}`)
    }
  }
}

/** How many answers are made together, by what the longest of them takes. */
function limitsFor(
  decoder: CachedDecoder,
  requests: readonly GenerateRequest[],
): { mostRows: number; prefixBytes: number } {
  const { layers, kvHeads, headDim } = decoder.newCache(0).shape
  const longest = requests.reduce((most, { ids, maxNewTokens }) => Math.max(most, ids.length + maxNewTokens), 1)
  const rowBytes = 8 * layers * kvHeads * headDim * longest
  return { mostRows: Math.max(1, Math.min(32, Math.floor(mostCache / rowBytes))), prefixBytes: mostCache / 4 }
}

function likeliest(labels: readonly string[], scores: readonly number[]): string {
  let best = 0
  for (let i = 1; i < scores.length; i++) if (scores[i]! > scores[best]!) best = i
  return labels[best]!
}

async function readSchema(path: string | undefined): Promise<MetricSettings['isValid']> {
  if (path === undefined) return () => true
  const schema = await readJsonObject(path, { code: 'config' })
  // Loaded where it is used: it takes as long as all the rest.
  const { schemaCheck } = await import('../metrics/json-schema.ts')
  try {
    return schemaCheck(schema)
  } catch (cause) {
    throw new LowrankError('config', `${path}: no JSON Schema that can be used (${messageOf(cause)})`, {
      cause,
      hint: 'Drafts 7, 2019-09 and 2020-12 are known, without references to other files.',
    })
  }
}

/** A file of the user, which does whatever it does: it is named on the command line or in a file of options, as a program is. */
async function importMetric(path: string): Promise<OwnMetric> {
  const hint = 'It is a module with export default (prompt, completion, expected) => number.'
  const module = (await import(pathToFileURL(resolve(path)).href).catch((cause: unknown) => {
    throw new LowrankError('config', `metricModule: ${path} cannot be loaded (${messageOf(cause)})`, { cause, hint })
  })) as { readonly default?: unknown }
  if (typeof module.default === 'function') return module.default as OwnMetric
  throw new LowrankError('config', `metricModule: ${path} has no function as its default export`, { hint })
}

async function measuredBy(
  own: OwnMetric,
  { prompt, completion = '', expected }: Answer,
  place: string,
): Promise<number> {
  let value: unknown
  try {
    value = await own(prompt, completion, expected)
  } catch (cause) {
    throw new LowrankError('config', `metricModule: it failed for ${place} (${messageOf(cause)})`, { cause })
  }
  if (typeof value === 'number' && Number.isFinite(value)) return value
  throw new LowrankError('config', `metricModule: for ${place} it gave ${String(value)}, not a finite number`)
}

/** The worst first: by what the first metric says of each, then by the loss. */
export function worstFirst<T extends { readonly metrics: Readonly<Record<string, number>>; readonly loss: number }>(
  answers: readonly T[],
): T[] {
  return answers.toSorted((a, b) => {
    const [first] = Object.keys(a.metrics)
    const by = first === undefined ? 0 : (a.metrics[first] ?? 0) - (b.metrics[first] ?? 0)
    return by === 0 ? b.loss - a.loss : by
  })
}
