import { z } from 'zod'
import { option, type OptionMeta, path } from './fields.ts'
import { dataFiles, reading } from './groups/data.ts'
import { lora, loraKeys } from './groups/lora.ts'
import { machine } from './groups/machine.ts'
import { modelAndData } from './groups/model.ts'
import { optimization } from './groups/optimization.ts'
import { quantization } from './groups/quantization.ts'
import { reports } from './groups/reports.ts'
import { saving } from './groups/saving.ts'
import { training } from './groups/training.ts'
import { watching } from './groups/watching.ts'
import { ownMetric } from '../metrics/index.ts'
import { checkMeasuring, deciding, measuring, metricsOf } from './groups/metrics.ts'
import { optionSet, type Rules } from './parse.ts'
import { checkQuantization, fillQuantization } from './quantization.ts'
import { checkSettings } from './settings.ts'

/**
 * Every option, declared once (in `groups/`): its type, bounds, default, help text and group. Types, command line flags, keys of YAML
 * files, help pages and the JSON Schema all derive from here. Names and defaults are those of PEFT's `LoraConfig` and
 * transformers' `TrainingArguments`, in camelCase.
 */

export const trainSchema = z.strictObject({
  model: modelAndData.model,
  adapter: modelAndData.adapter,
  train: dataFiles.train,
  valid: dataFiles.valid,
  validSplit: dataFiles.validSplit,
  outputDir: option(path, {
    group: 'Model and data',
    description: 'Folder that receives the adapter, checkpoints, run.json and metrics.jsonl',
    resume: 'free',
    placeholder: 'DIR',
  }),
  ...reading,
  ...lora,
  ...quantization,
  ...training,
  ...optimization,
  ...watching,
  ...measuring,
  ...deciding,
  ...saving,
  ...reports,
  threads: machine.threads,
  activations: option(z.enum(['keep', 'recompute', 'auto']).default('auto'), {
    group: 'Machine',
    description: 'Keep what the backward pass needs (faster), or compute it again (less memory)',
    resume: 'free',
  }),
  matmulPrecision: option(z.enum(['highest', 'high', 'auto']).default('auto'), {
    group: 'Machine',
    description:
      'Products with frozen weights in f32, or put together from products of 8-bit integers, or the faster on this machine',
    resume: 'free',
  }),
  memory: machine.memory,
})

/** Options of a training run as a user passes them; what is left out takes its default. */
export type TrainConfigInput = z.input<typeof trainSchema>

/**
 * Options of a training run, complete: defaults filled in, `evalStrategy` and `loadIn4bit` decided, `evalSteps` and the
 * options of a 4-bit base set where they count.
 */
export type TrainConfig = Omit<z.output<typeof trainSchema>, 'evalStrategy' | 'loadIn4bit'> & {
  evalStrategy: 'no' | 'steps' | 'epoch'
  loadIn4bit: boolean
}

/** What no single option of a training run can show. */
export const trainRules: Rules<TrainConfig> = {
  check: (config, nameOf) => [
    ...crossCheck(config, nameOf),
    ...checkQuantization(config, { qlora: config.method === 'qlora' }, nameOf),
    ...checkSettings(config, nameOf),
    ...checkMeasuring(config, nameOf),
  ],
  complete: (config) => {
    fillQuantization(config, { qlora: config.method === 'qlora' })
    config.evalStrategy ??=
      config.evalSteps !== undefined
        ? 'steps'
        : config.valid !== undefined || config.validSplit !== undefined
          ? 'epoch'
          : 'no'
    if (config.evalStrategy === 'steps') config.evalSteps ??= config.loggingSteps
    const metrics = metricsOf(config)
    if (metrics.length > 0) config.metrics = metrics
  },
}

export const trainOptions = optionSet<typeof trainSchema, TrainConfig>(trainSchema, trainRules)

/** The options of a training run, complete, of an object of them. */
export function parseTrainConfig(input: unknown): TrainConfig {
  return trainOptions.parse(input)
}

/** What an option is when it is left out, unless others decide it. */
export function defaultOf(key: string): unknown {
  return optionOf(key)?.safeParse(undefined).data
}

/** Whether an option may change when a run goes on. */
export function resumeRule(key: string): OptionMeta['resume'] {
  return (optionOf(key)?.meta() as OptionMeta | undefined)?.resume
}

function optionOf(key: string): z.ZodType | undefined {
  return (trainSchema.shape as Readonly<Record<string, z.ZodType>>)[key]
}

/** Whether an option was set. A value equal to the default says nothing, so that a complete configuration can be parsed again. */
export function isSet(config: Partial<TrainConfig>, key: keyof TrainConfig): boolean {
  return config[key] !== undefined && JSON.stringify(config[key]) !== JSON.stringify(defaultOf(key))
}

/**
 * What no single option can show; options without a use are no problem, see `unused.ts`. `config` lacks the options that
 * are wrong by themselves.
 */
function crossCheck(config: Partial<TrainConfig>, nameOfKey: (key: keyof TrainConfig) => string): string[] {
  const problems: string[] = []
  if (config.reportTo?.includes('webhook') === true && config.webhookUrl === undefined)
    problems.push(`${nameOfKey('reportTo')}: webhook needs ${nameOfKey('webhookUrl')}, which is not set`)
  if (config.valid !== undefined && config.validSplit !== undefined) {
    problems.push(`${nameOfKey('validSplit')}: has no meaning with ${nameOfKey('valid')}`)
  }
  if (config.valid === undefined && config.validSplit === undefined) {
    const needed = `${nameOfKey('valid')}, which is not set`
    if (config.loadBestModelAtEnd === true) problems.push(`${nameOfKey('loadBestModelAtEnd')}: needs ${needed}`)
    if (config.evalStrategy !== undefined && config.evalStrategy !== 'no')
      problems.push(`${nameOfKey('evalStrategy')}: needs ${needed}`)
    if (config.evalSteps !== undefined && config.evalStrategy === undefined)
      problems.push(`${nameOfKey('evalSteps')}: needs ${needed}`)
    if (config.earlyStoppingPatience !== undefined)
      problems.push(`${nameOfKey('earlyStoppingPatience')}: needs ${needed}`)
    for (const key of ['metrics', 'metricModule', 'metricForBestModel'] as const) {
      if (config[key] !== undefined) problems.push(`${nameOfKey(key)}: needs ${needed}`)
    }
    if (config.evalOnStart === true) problems.push(`${nameOfKey('evalOnStart')}: needs ${needed}`)
    if (config.samples !== undefined && config.samples > 0) problems.push(`${nameOfKey('samples')}: needs ${needed}`)
  } else if (config.evalStrategy === 'no') {
    const needed = `needs evaluations, but ${nameOfKey('evalStrategy')} is no`
    if (config.loadBestModelAtEnd === true) problems.push(`${nameOfKey('loadBestModelAtEnd')}: ${needed}`)
    if (config.earlyStoppingPatience !== undefined) problems.push(`${nameOfKey('earlyStoppingPatience')}: ${needed}`)
    if (config.metricForBestModel !== undefined) problems.push(`${nameOfKey('metricForBestModel')}: ${needed}`)
  }
  if (config.metricForBestModel === ownMetric && config.metricModule === undefined) {
    problems.push(
      `${nameOfKey('metricForBestModel')}: ${ownMetric} needs ${nameOfKey('metricModule')}, which is not set`,
    )
  }
  if (config.resume === true && config.resumeFrom !== undefined) {
    problems.push(`${nameOfKey('resume')}: resumes from the latest checkpoint, ${nameOfKey('resumeFrom')} from another`)
  }
  if (config.resumeAnyway === true && config.resume !== true && config.resumeFrom === undefined) {
    problems.push(`${nameOfKey('resumeAnyway')}: needs ${nameOfKey('resume')} or ${nameOfKey('resumeFrom')}`)
  }
  if (config.method === 'full') {
    if (config.adapter !== undefined) {
      problems.push(
        `${nameOfKey('adapter')}: has no meaning with ${nameOfKey('method')} full, which trains every weight`,
      )
    }
    return problems
  }
  if (config.adapter !== undefined) {
    for (const key of loraKeys.filter((one) => isSet(config, one))) {
      problems.push(
        `${nameOfKey(key)}: has no meaning with ${nameOfKey('adapter')}: training continues with the adapter's own shape`,
      )
    }
  }
  if (config.init === 'random') {
    problems.push(
      `${nameOfKey('init')}: random weights need ${nameOfKey('method')} full; an adapter needs a trained base`,
    )
  }
  return problems
}
