export { evaluate, finetune, loadModel, Model, quantize, replay, selftest } from './client.ts'
export type { CallOptions, StatusOptions } from './client.ts'
export type {
  EvalConfigInput,
  GenerateOptionsInput as GenerateOptions,
  LoadModelOptionsInput as LoadModelOptions,
  QuantizeConfigInput,
  ReplayOptionsInput,
  SelftestConfigInput,
  TrainConfigInput,
} from './config.ts'
export type { QuantizeResult } from './quantize.ts'
export { compareRuns, type Comparison } from './report/compare.ts'
export { listRuns, type RunList, type RunSummary } from './report/list.ts'
export type { Figures } from './report/read.ts'
export { writeReport } from './report/report.ts'
export type { ReplayedExample, ReplayResult } from './replay.ts'
export type { CheckResult, SelftestResult } from './selftest.ts'
export type { DatasetSummary, EvalResult, EvaluationResult, TrainEvent } from './train/events.ts'
export { LowrankError, type ErrorCode } from './util/errors.ts'
