import { bleu } from './bleu.ts'
import { accuracyOf, type Confusion, confusionOf, macroF1Of } from './classification.ts'
import { rouge } from './rouge.ts'

export type { Confusion } from './classification.ts'

/*
 * What answers are measured by. Nothing here knows of models or files: texts go in, numbers come out, and the options of commands derive from
 * the table.
 */

/** What a model made of an example, beside what was expected. */
export interface Answer {
  /** As the model was given it. */
  readonly prompt: string
  readonly expected: string
  /** What it generated; undefined where nothing was. */
  readonly completion?: string | undefined
  /** The label that it gave, in a classification. */
  readonly predicted?: string | undefined
}

/** A number that an evaluation comes to. */
export interface MetricValue {
  readonly what: string
  readonly greaterIsBetter: boolean
  /** `share`: from 0 to 1; `points`: from 0 to 100; `number`: any. */
  readonly scale: 'share' | 'points' | 'number'
}

/** What the metrics of an evaluation need to know beside the answers. */
export interface MetricSettings {
  /** The labels of a classification. */
  readonly labels: readonly string[]
  /** Whether a value is as the schema says, where there is one. */
  readonly isValid: (value: unknown) => boolean
}

/** A way to measure answers. */
export interface Metric {
  /** One line for help pages. */
  readonly what: string
  /** What it is computed of. */
  readonly needs: 'completion' | 'label'
  /** The numbers that it comes to, by their names in results. */
  readonly values: Readonly<Record<string, MetricValue>>
  /** Over all answers, at least one. */
  over(answers: readonly Answer[], settings: MetricSettings): Readonly<Record<string, number>>
  /** Of one answer, where that says something by itself; greater is better. */
  of?(answer: Answer, settings: MetricSettings): Readonly<Record<string, number>>
}

const better = { greaterIsBetter: true } as const

/** The metrics, by their names as options. A new one is a line here. */
export const metrics = {
  'exact-match': averaged(
    'Answers that are as expected, but for white space at their ends',
    { exactMatch: { what: 'exact match', scale: 'share', ...better } },
    ({ expected, completion = '' }) => ({ exactMatch: expected.trim() === completion.trim() ? 1 : 0 }),
  ),
  rouge: averaged(
    'Common words, pairs of words and longest common subsequence, F-measures as of rouge-score',
    {
      rouge1: { what: 'ROUGE-1', scale: 'share', ...better },
      rouge2: { what: 'ROUGE-2', scale: 'share', ...better },
      rougeL: { what: 'ROUGE-L', scale: 'share', ...better },
    },
    ({ expected, completion = '' }) => ({ ...rouge(expected, completion) }),
  ),
  bleu: {
    what: 'BLEU of the corpus, as of sacrebleu',
    needs: 'completion',
    values: { bleu: { what: 'BLEU', scale: 'points', ...better } },
    over: (answers) => ({ bleu: bleu(answers.map(translation)) }),
    of: (answer) => ({ bleu: bleu([translation(answer)], { effectiveOrder: true }) }),
  },
  json: averaged(
    'Answers that are JSON, of the schema where one is given',
    { jsonValid: { what: 'valid JSON', scale: 'share', ...better } },
    ({ completion = '' }, { isValid }) => ({ jsonValid: isJson(completion, isValid) ? 1 : 0 }),
  ),
  accuracy: {
    what: 'Labels that are as expected',
    needs: 'label',
    values: { accuracy: { what: 'accuracy', scale: 'share', ...better } },
    over: (answers, { labels }) => ({ accuracy: accuracyOf(confusionFor(answers, labels)) }),
    of: ({ expected, predicted }) => ({ accuracy: expected.trim() === predicted ? 1 : 0 }),
  },
  'macro-f1': {
    what: 'Mean of the F1 of each label',
    needs: 'label',
    values: { macroF1: { what: 'macro F1', scale: 'share', ...better } },
    over: (answers, { labels }) => ({ macroF1: macroF1Of(confusionFor(answers, labels)) }),
  },
} as const satisfies Readonly<Record<string, Metric>>

export type MetricName = keyof typeof metrics
export const metricNames = Object.keys(metrics) as [MetricName, ...MetricName[]]

/** The table for whoever has a name. */
export function metricOf(name: MetricName): Metric {
  return metrics[name]
}

/** What every evaluation comes to, without a metric. */
const always = {
  loss: { what: 'loss', greaterIsBetter: false, scale: 'number' },
  perplexity: { what: 'perplexity', greaterIsBetter: false, scale: 'number' },
  tokenAccuracy: { what: 'token accuracy', scale: 'share', ...better },
} as const satisfies Readonly<Record<string, MetricValue>>

/** What a user's own metric is called in results. */
export const ownMetric = 'custom'

/** Every number by which evaluations may be compared, by its name in results. */
export const metricValues: Readonly<Record<string, MetricValue & { readonly of?: MetricName }>> = {
  ...always,
  ...Object.fromEntries(
    metricNames.flatMap((name) =>
      Object.entries(metricOf(name).values).map(([key, value]) => [key, { ...value, of: name }]),
    ),
  ),
  [ownMetric]: { what: 'own metric', greaterIsBetter: true, scale: 'number' },
}

/** The name in results of what is asked for as `rougeL`, `eval_rougeL` (transformers) or `exact-match`; undefined where there is none. */
export function valueNamed(name: string): string | undefined {
  const plain = (text: string): string =>
    text
      .replace(/^eval[_-]/, '')
      .replaceAll(/[_-]/g, '')
      .toLowerCase()
  return Object.keys(metricValues).find((key) => plain(key) === plain(name))
}

/** An evaluation as far as it can be compared with another. */
export interface Measured {
  readonly loss: number
  readonly perplexity: number
  readonly tokenAccuracy: number
  readonly metrics?: Readonly<Record<string, number>> | undefined
}

/** A number of an evaluation by its name in results; undefined where it was not measured. */
export function valueOf({ metrics: found, ...rest }: Measured, name: string): number | undefined {
  return name in always ? rest[name as keyof typeof always] : found?.[name]
}

/** How often each label was taken for which; undefined unless metrics of labels are asked for. */
export function confusionFor(answers: readonly Answer[], labels: readonly string[]): Confusion {
  const labelled = answers.map(({ expected, predicted = '' }) => ({ expected: expected.trim(), predicted }))
  return confusionOf(labelled, labels)
}

/** A number as people read it: shares in percent. Nothing where there is none. */
export function metricText(name: string, value: number | undefined): string {
  if (value === undefined) return ''
  const scale = metricValues[name]?.scale
  return scale === 'share' ? `${(100 * value).toFixed(1)} %` : value.toFixed(scale === 'points' ? 2 : 4)
}

/** A metric of all answers that is the mean of what each comes to. */
function averaged(
  what: string,
  values: Metric['values'],
  of: NonNullable<Metric['of']>,
): Metric & { readonly needs: 'completion' } {
  const over: Metric['over'] = (answers, settings) => {
    const all = answers.map((answer) => of(answer, settings))
    const mean = (key: string): number => all.reduce((total, one) => total + one[key]!, 0) / all.length
    return Object.fromEntries(Object.keys(values).map((key) => [key, mean(key)]))
  }
  return { what, needs: 'completion', values, over, of }
}

function translation({ expected, completion = '' }: Answer): {
  readonly expected: string
  readonly completion: string
} {
  return { expected, completion }
}

function isJson(text: string, isValid: (value: unknown) => boolean): boolean {
  try {
    return isValid(JSON.parse(text))
  } catch {
    return false
  }
}
