import { z } from 'zod'
import { type MetricName, metricNames, metricValues, valueNamed } from '../../metrics/index.ts'
import { count, name, option, path } from '../fields.ts'

const group = 'Metrics'

/** What answers are measured by, beside the loss. Of a run they may change unless evaluations decide what it comes to. */
export const measuring = {
  metrics: option(z.array(z.enum(metricNames)).min(1).optional(), {
    group,
    description: 'What answers are measured by: exact-match, rouge, bleu, json, accuracy, macro-f1 (docs/evaluate.md)',
    placeholder: 'A,B',
    unset: 'the loss alone',
    resume: 'evaluations',
  }),
  labels: option(z.array(name).min(2).max(1000).optional(), {
    group,
    description: 'The labels of a classification',
    unset: 'the answers that the data has',
    resume: 'evaluations',
  }),
  classify: option(z.enum(['likelihood', 'generate']).default('likelihood'), {
    group,
    description: 'How a label is given: the likeliest of all, or by generation',
    resume: 'evaluations',
  }),
  schema: option(path.optional(), {
    group,
    description: 'JSON Schema that answers are to satisfy (metric json)',
    placeholder: 'FILE',
    resume: 'evaluations',
  }),
  metricModule: option(path.optional(), {
    group,
    description: 'JavaScript module whose default export (prompt, completion, expected) => number measures an answer',
    placeholder: 'FILE',
    resume: 'evaluations',
  }),
  maxNewTokens: option(count.default(128), {
    group,
    description: 'Tokens that an answer has at most, where answers are generated',
    resume: 'evaluations',
  }),
}

/** What evaluations decide in a run, named as in transformers. */
export const deciding = {
  metricForBestModel: option(
    z
      .string()
      .max(100)
      .refine((value) => valueNamed(value) !== undefined)
      .transform((value) => valueNamed(value)!)
      .optional(),
    {
      group,
      description: 'The number of evaluations that says which weights are best: eval_loss, eval_rougeL, eval_accuracy',
      placeholder: 'NAME',
      accepts: `one of ${Object.keys(metricValues).join(', ')}, also with eval_ before it`,
      unset: 'loss',
      resume: 'evaluations',
    },
  ),
  greaterIsBetter: option(z.boolean().optional(), {
    group,
    description: 'Whether more of it is better',
    unset: 'as is usual for it',
    resume: 'evaluations',
  }),
  metricExamples: option(count.optional(), {
    group,
    description: 'Validation examples that metrics are computed on, from the first',
    unset: 'all',
    resume: 'evaluations',
  }),
}

export const measuringSchema = z.object(measuring)
export const decidingSchema = measuringSchema.extend(deciding)

/** What answers are measured by, complete. */
export type MeasuringOptions = z.output<typeof measuringSchema>

/** The same of a run, in which it may decide. */
export type DecidingOptions = z.output<typeof decidingSchema>

/** The metrics that are asked for, with the one that decides. */
export function metricsOf({ metrics = [], metricForBestModel = 'loss' }: Partial<DecidingOptions>): MetricName[] {
  const of = metricValues[metricForBestModel]?.of
  return of === undefined || metrics.includes(of) ? metrics : [...metrics, of]
}

/** Options of metrics that nothing uses; they are refused, since the figures would not be what was asked for. */
export function checkMeasuring(
  config: Partial<DecidingOptions>,
  nameOf: (key: keyof MeasuringOptions) => string,
): string[] {
  const metrics = metricsOf(config)
  const classifies = metrics.includes('accuracy') || metrics.includes('macro-f1')
  const needs = (key: keyof MeasuringOptions, wanted: string): string[] =>
    config[key] === undefined ? [] : [`${nameOf(key)}: needs ${nameOf('metrics')} ${wanted}`]
  return [
    ...(classifies ? [] : needs('labels', 'accuracy or macro-f1')),
    ...(metrics.includes('json') ? [] : needs('schema', 'json')),
  ]
}
