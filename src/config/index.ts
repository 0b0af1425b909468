/** The configuration: options are declared once, in groups, from which everything else derives. */
export { loadConfigFile } from './file.ts'
export { choiceOf, type MatmulPrecision, type MemoryChoice, memoryChoiceSchema } from './memory-choice.ts'
export { closest, resolveName } from './names.ts'
export { jsonSchema, optionsOf, type Option } from './options.ts'
export { checkCall, checkText } from './call.ts'
export { optionSet, type Entry, type OptionSet, type Source } from './parse.ts'
export { checkMeasuring, type MeasuringOptions } from './groups/metrics.ts'
export type { GenerationSettings, Precision } from './groups/generation.ts'
export {
  heldRules,
  mergeRules,
  quantizationOf,
  quantizationText,
  quantizedRules,
  type Quantization,
} from './quantization.ts'
export { quantizationSchema, type QuantizationOptions } from './groups/quantization.ts'
export {
  defaultOf,
  parseTrainConfig,
  resumeRule,
  trainOptions,
  trainRules,
  trainSchema,
  type TrainConfig,
  type TrainConfigInput,
} from './train.ts'
export {
  settingsOfSchedule,
  settingsOfSgd,
  type OptimizerName,
  type Schedule,
  type ScheduleSettings,
} from './settings.ts'
export { unusedOptions } from './unused.ts'
export { type MethodName, methodNames, methodOf, rateFor, startingRate, withMethod } from './methods.ts'
