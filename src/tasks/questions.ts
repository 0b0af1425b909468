import type { MeasuringOptions } from '../config/index.ts'
import { type MetricName, metricOf } from '../metrics/index.ts'
import { askedOf } from '../text/asked.ts'
import { type Dataset, placeOf } from '../text/dataset.ts'
import { lastAnswer, type SampleEncoder } from '../text/encode.ts'
import { idsOf, labelMaskOf } from '../text/example.ts'
import { isProblem, type Sample } from '../text/shapes/index.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { LowrankError } from '../util/errors.ts'

/** An example as a question that a model is asked. */
export interface Question {
  /** Where it is from. */
  readonly place: string
  /** The text before the answer, without special tokens, and its ids, at least one. */
  readonly prompt: string
  readonly ids: Int32Array
  readonly expected: string
  /** Ids of each label as the answer, with what ends it, in the order of the labels; none where labels are not scored. */
  readonly labelIds: readonly Int32Array[]
}

export interface Questions {
  readonly questions: readonly Question[]
  /** Of a classification; empty otherwise. */
  readonly labels: readonly string[]
  /** Examples that are left out, since they were cut to maxLength: their answers are not whole. */
  readonly cut: number
}

interface QuestionOptions {
  readonly config: Pick<MeasuringOptions, 'metrics' | 'labels' | 'classify'> & {
    readonly trainOnInputs?: boolean | undefined
  }
  /** Read with `keepSamples`. */
  readonly dataset: Dataset
  readonly encoder: SampleEncoder
  readonly tokenizer: Tokenizer
  /** Most questions, from the first; all by default. */
  readonly limit?: number | undefined
}

/** More answers than these are no labels, unless they are named. */
const mostFound = 100

/**
 * Makes questions of examples: the tokens before the last answer, as in training, and what is expected behind them.
 *
 * @throws LowrankError `data`: an example asks nothing, or expects what is no label; `config`: everything is learned; `cancelled`.
 */
export async function askedOfAll({
  config,
  dataset,
  encoder,
  tokenizer,
  limit = Infinity,
}: QuestionOptions): Promise<Questions> {
  const { metrics = [], classify } = config
  if (config.trainOnInputs === true) throw wholeTexts('trainOnInputs')
  const { examples, summary, samples = [] } = dataset
  const found: { place: string; sample: Sample; expected: string; ids: Int32Array }[] = []
  let cut = 0
  for (let i = 0; i < examples.length && found.length < limit; i++) {
    const example = examples.at(i)!
    const sample = samples[i]
    if (sample === undefined) {
      cut++
      continue
    }
    const place = placeOf(example, summary)
    const asked = askedOf(sample)
    if (isProblem(asked)) throw noQuestion(place, asked.problem)
    const start = lastAnswer(example.labelMask)
    found.push({ place, sample, expected: asked.expected, ids: promptOf(example.ids, start, sample, tokenizer) })
  }
  if (found.length === 0)
    throw new LowrankError(
      'data',
      `${summary.path}: no example is left to measure answers of: all are longer than maxLength`,
      { hint: 'Raise it (--max-length).' },
    )
  const prompts = await tokenizer.decode(found.map(({ ids }) => ids))
  const labels = metrics.some((name) => needsLabels(name)) ? labelsOf(found, config, summary.path) : []
  const scored = classify === 'likelihood' ? labels : []
  const variants = found.flatMap(({ sample, expected }) => scored.map((label) => answered(sample, expected, label)))
  const encoded = await encoder.encode(variants)
  const questions = found.map(({ place, expected, ids, sample }, i): Question => {
    const rows = encoded.slice(i * scored.length, (i + 1) * scored.length).map((row) => {
      if (isProblem(row)) throw noQuestion(place, row.problem)
      return { ids: idsOf(row), start: lastAnswer(labelMaskOf(row)) }
    })
    // Where a label changes how the end of the prompt is tokenized, what is common is computed once.
    const border = Math.min(...rows.map(({ start }) => start))
    const prompt = rows.length === 0 ? ids : promptOf(rows[0]!.ids, border, sample, tokenizer)
    return { place, prompt: prompts[i]!, ids: prompt, expected, labelIds: rows.map((row) => row.ids.slice(border)) }
  })
  return { questions, labels, cut }
}

/** The ids that are continued. As where a model generates, an end stands for a prompt of no token. */
function promptOf(ids: Int32Array, start: number, sample: Sample, { eosId }: Tokenizer): Int32Array {
  const isEmpty = start === 0 || (start === 1 && sample.kind === 'pair' && sample.prompt === '')
  return isEmpty ? Int32Array.of(eosId) : ids.slice(0, start)
}

function needsLabels(name: MetricName): boolean {
  return metricOf(name).needs === 'label'
}

/** The sample with a label as its answer, with the white space around it that the data has there. */
function answered(sample: Sample, expected: string, label: string): Sample {
  const asked = askedOf(sample)
  if (isProblem(asked)) throw new TypeError(asked.problem)
  const [, before = '', after = ''] = /^(\s*)[^]*?(\s*)$/.exec(expected) ?? []
  return asked.withAnswer(`${before}${label}${after}`)
}

function labelsOf(
  found: readonly { readonly place: string; readonly expected: string }[],
  { labels }: QuestionOptions['config'],
  path: string,
): readonly string[] {
  if (labels === undefined) {
    const distinct = [...new Set(found.map(({ expected }) => expected.trim()))].toSorted()
    if (distinct.length >= 2 && distinct.length <= mostFound) return distinct
    const what = distinct.length < 2 ? 'only one answer' : `${distinct.length} different answers`
    throw new LowrankError('data', `${path}: labels are to be found from the data, which has ${what}`, {
      hint: 'Name the labels (--labels a,b,c), or leave out the metrics accuracy and macro-f1.',
    })
  }
  const names = labels.map((label) => label.trim())
  const unknown = found.find(({ expected }) => !names.includes(expected.trim()))
  if (unknown === undefined) return names
  const answer = JSON.stringify(unknown.expected.trim().slice(0, 80))
  throw new LowrankError('data', `${unknown.place}: the answer ${answer} is none of the labels ${names.join(', ')}`, {
    hint: 'Name all labels that the data has (--labels), as they are written there.',
  })
}

function noQuestion(place: string, problem: string): LowrankError {
  return new LowrankError('data', `${place}: ${problem}`, {
    hint: 'Metrics of answers need prompts and completions, or conversations that end with an answer. Without --metrics the loss is computed of any data.',
  })
}

function wholeTexts(option: string): LowrankError {
  return new LowrankError(
    'config',
    `${option}: everything is learned, so there is no answer that metrics could measure`,
    {
      hint: 'Leave it out, or the metrics.',
    },
  )
}
