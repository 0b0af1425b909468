import { fourBitKeys } from './quantization.ts'
import { loraKeys } from './groups/lora.ts'
import { isSet, type TrainConfig } from './train.ts'

/**
 * Options of a resolved configuration that others leave without a use, as texts to warn with, a line each. They are not refused, so
 * that methods, optimizers and schedules can be compared by changing one word.
 */
export function unusedOptions(config: TrainConfig): string[] {
  const notUsed = (why: string, keys: readonly (keyof TrainConfig)[]): string[] => {
    const unused = keys.filter((key) => isSet(config, key))
    return unused.length === 0 ? [] : [`${why}: ${listed(unused)} ${unused.length === 1 ? 'is' : 'are'} not used`]
  }
  const watching =
    config.earlyStoppingPatience === undefined
      ? notUsed('without earlyStoppingPatience no run is stopped early', ['earlyStoppingThreshold'])
      : []
  const metrics =
    config.metrics === undefined && config.metricModule === undefined
      ? notUsed('without metrics no answers are measured', ['classify', 'maxNewTokens', 'metricExamples'])
      : []
  const reports = [
    ...(config.reportTo.includes('tensorboard') ? [] : notUsed('reportTo has no tensorboard', ['loggingDir'])),
    ...(config.reportTo.includes('webhook') ? [] : notUsed('reportTo has no webhook', ['webhookUrl'])),
  ]
  const course = [
    ...(config.optim === 'sgd' ? notUsed('optim sgd has no moments', ['adamBeta1', 'adamBeta2', 'adamEpsilon']) : []),
    ...(config.lrSchedulerType === 'constant'
      ? notUsed('lrSchedulerType constant has no warmup', ['warmupSteps', 'warmupRatio'])
      : []),
  ]
  const common = [...watching, ...metrics, ...reports, ...course]
  if (config.method === 'full')
    return [...common, ...notUsed('method full trains every weight', [...loraKeys, 'loraplusLrRatio', ...fourBitKeys])]
  const base = config.loadIn8bit
    ? 'this run quantizes the base to 8 bits'
    : 'this run does not quantize the base to 4 bits'
  return [
    ...common,
    ...notUsed(`method ${config.method} stores an adapter in f32`, ['saveDtype']),
    ...(config.loadIn4bit ? [] : notUsed(base, fourBitKeys)),
  ]
}

/** `r, loraAlpha and targetModules`. */
function listed(names: readonly string[]): string {
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`
}
