import { z } from 'zod'
import { dataFiles, reading } from '../config/groups/data.ts'
import { machine } from '../config/groups/machine.ts'
import { openedModel } from '../config/groups/model.ts'
import { heldBase } from '../config/groups/quantization.ts'
import { training } from '../config/groups/training.ts'
import { watching } from '../config/groups/watching.ts'
import { heldRules, optionSet } from '../config/index.ts'
import { dataLine } from '../terminal/events.ts'
import { count, number, percent } from '../util/format.ts'
import type { EvalResult, EvaluationResult } from '../train/events.ts'
import type { StatusOptions } from './compute.ts'
import { defineCommand } from './define.ts'

export type { DatasetSummary, EvalResult, EvaluationResult } from '../train/events.ts'

const options = optionSet(
  z.strictObject({
    ...openedModel,
    data: dataFiles.data,
    ...reading,
    ...heldBase,
    perDeviceEvalBatchSize: watching.perDeviceEvalBatchSize.meta({ group: 'Data' }),
    sharePrefixes: training.sharePrefixes.meta({ group: 'Data' }),
    ...machine,
  }),
  heldRules,
)

/** Options of an evaluation as a user passes them. */
export type EvalConfigInput = z.input<typeof options.schema>

/** Loss, perplexity and token accuracy of a model, with or without an adapter, on a dataset. */
export const evaluate: (config: EvalConfigInput, options?: StatusOptions) => Promise<EvaluationResult> = defineCommand({
  name: 'eval',
  summary: 'Measure the loss of a model, with or without an adapter, on a file of prompts and completions',
  usage: '[flags]',
  notes:
    'Loss is in nats per label token; token accuracy is the share of label tokens that greedy decoding gets right.',
  options,
  load: async () => (await import('../tasks/evaluate.ts')).runEvaluation,
  announce: ({ data }) => `evaluating on ${data}`,
  aside: ({ data }) => [dataLine('data', data)],
  text: (result) => [evalText(result)],
})

/** An evaluation in words, one line. */
function evalText(result: EvalResult): string {
  return (
    `loss ${number(result.loss)}  perplexity ${number(result.perplexity)}  ` +
    `token accuracy ${percent(result.tokenAccuracy)}  ` +
    `(${count(result.labelTokens)} label tokens, ${count(result.examples)} examples)`
  )
}
