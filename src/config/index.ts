/** The configuration: one schema in `config/schema.ts`, from which everything else derives. */
export { loadConfigFile } from './file.ts'
export { closest, resolveName } from './names.ts'
export { jsonSchema, optionsOf, type Option } from './options.ts'
export { checkCall, checkText } from './call.ts'
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
} from './parse.ts'
export { quantizationOf, quantizationText, type Quantization } from './quantization.ts'
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
} from './schema.ts'
export {
  settingsOfSchedule,
  settingsOfSgd,
  type OptimizerName,
  type Schedule,
  type ScheduleSettings,
} from './settings.ts'
export { unusedOptions } from './unused.ts'
