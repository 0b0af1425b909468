/** The configuration: one schema in `config/schema.ts`, from which everything else derives. */
export { loadConfigFile } from './config/file.ts'
export { closest, resolveName } from './config/names.ts'
export { jsonSchema, optionsOf, type Option } from './config/options.ts'
export { checkCall, checkText } from './config/call.ts'
export {
  parseEvalConfig,
  parseQuantizeConfig,
  parseOptions,
  parseSelftestConfig,
  parseTrainConfig,
  readEvalConfig,
  readOptions,
  readQuantizeConfig,
  readSelftestConfig,
  readTrainConfig,
  type Entry,
  type Source,
} from './config/parse.ts'
export { quantizationOf, quantizationText, type Quantization } from './config/quantization.ts'
export {
  compareSchema,
  evalSchema,
  generateSchema,
  loadModelSchema,
  quantizationSchema,
  quantizeSchema,
  replaySchema,
  reportSchema,
  runsSchema,
  selftestSchema,
  trainSchema,
  type EvalConfig,
  type EvalConfigInput,
  type GenerateOptionsInput,
  type LoadModelOptionsInput,
  type QuantizationOptions,
  type QuantizeConfig,
  type QuantizeConfigInput,
  type ReplayOptions,
  type ReplayOptionsInput,
  type SelftestConfig,
  type SelftestConfigInput,
  type TrainConfig,
  type TrainConfigInput,
} from './config/schema.ts'
export {
  settingsOfSchedule,
  settingsOfSgd,
  type OptimizerName,
  type Schedule,
  type ScheduleSettings,
} from './config/settings.ts'
export { unusedOptions } from './config/unused.ts'
