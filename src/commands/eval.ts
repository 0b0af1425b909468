import { z } from 'zod'
import { count, option, path } from '../config/fields.ts'
import { dataFiles, reading } from '../config/groups/data.ts'
import { machine } from '../config/groups/machine.ts'
import { measuring } from '../config/groups/metrics.ts'
import { foundModel } from '../config/groups/model.ts'
import { heldBase } from '../config/groups/quantization.ts'
import { watching } from '../config/groups/watching.ts'
import { checkMeasuring, heldRules, optionSet } from '../config/index.ts'
import { evaluationLines } from '../terminal/evaluation.ts'
import { dataLine } from '../terminal/events.ts'
import type { EvaluationResult } from '../train/events.ts'
import type { StatusOptions } from './compute.ts'
import { defineCommand } from './define.ts'

export type { Baseline, Confusion, DatasetSummary, EvalResult, EvaluationResult } from '../train/events.ts'

const group = 'Comparing'

const options = optionSet(
  z.strictObject({
    ...foundModel,
    data: dataFiles.data,
    output: option(path.optional(), {
      group: 'Model and data',
      description: 'File that receives prompt, answer, loss and metrics of each example, a line each, the worst first',
      placeholder: 'FILE',
    }),
    ...measuring,
    baseline: option(z.boolean().default(false), {
      group,
      description: 'Evaluate the base model without the adapter too',
    }),
    shots: option(count.max(1000).optional(), {
      group,
      description: 'Evaluate the base model with so many examples before each prompt too',
    }),
    shotsFrom: option(dataFiles.valid.unwrap().optional(), {
      group,
      description: 'Where these examples are from: the training data',
      placeholder: 'FILES',
      accepts: 'a path, or several with commas between',
    }),
    ...reading,
    ...heldBase,
    perDeviceEvalBatchSize: watching.perDeviceEvalBatchSize.meta({ group: 'Data' }),
    ...machine,
  }),
  {
    check: (values, nameOf) => {
      const problems = heldRules.check(values, nameOf as Parameters<typeof heldRules.check>[1])
      problems.push(...checkMeasuring(values, nameOf))
      const { model, adapter, baseline, shots, shotsFrom } = values
      if (model === undefined && adapter === undefined) {
        problems.push(`${nameOf('model')}: it or ${nameOf('adapter')}, which says what it was trained on, is needed`)
      }
      if (baseline === true && adapter === undefined) {
        problems.push(`${nameOf('baseline')}: is about the base without ${nameOf('adapter')}, which is not set`)
      }
      if ((shots === undefined) !== (shotsFrom === undefined)) {
        problems.push(`${nameOf('shots')}: goes with ${nameOf('shotsFrom')}; one of them is not set`)
      }
      return problems
    },
    complete: (values) => heldRules.complete?.(values),
  },
)

/** Options of an evaluation as a user passes them. */
export type EvalConfigInput = z.input<typeof options.schema>

/** Loss, perplexity, token accuracy and metrics of a model, with or without an adapter, on a dataset. */
export const evaluate: (config: EvalConfigInput, options?: StatusOptions) => Promise<EvaluationResult> = defineCommand({
  name: 'eval',
  summary: 'Measure the loss of a model, with or without an adapter, and its answers, on a file of examples',
  usage: '[flags]',
  notes:
    'Loss is in nats per label token; token accuracy is the share of label tokens that greedy decoding gets right. ' +
    'Metrics are of answers that the model generates, or of labels by their likelihood.',
  options,
  load: async () => (await import('../tasks/evaluate.ts')).runEvaluation,
  announce: ({ data }) => `evaluating on ${data}`,
  aside: ({ data }) => [dataLine('data', data)],
  text: (result, { config }) => evaluationLines(result, { adapter: config.adapter !== undefined }),
})
