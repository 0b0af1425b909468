export { evaluate, finetune, loadModel, Model, quantize, replay, selftest } from './thread/client.ts'
export type { CallOptions, FinetuneOptions, StatusOptions } from './thread/client.ts'
export type {
  EvalConfigInput,
  GenerateOptionsInput as GenerateOptions,
  LoadModelOptionsInput as LoadModelOptions,
  QuantizeConfigInput,
  ReplayOptionsInput,
  SelftestConfigInput,
  TrainConfigInput,
} from './config/index.ts'
export type { QuantizeResult } from './tasks/quantize.ts'
export { compareRuns, type Comparison } from './report/compare.ts'
export { listRuns, type RunList, type RunSummary } from './runs/list.ts'
export type { Figures } from './runs/read.ts'
export { writeReport } from './report/report.ts'
export type { ReplayedExample, ReplayResult } from './tasks/replay.ts'
export type { CheckResult, SelftestResult } from './tasks/selftest/selftest.ts'
export type { DatasetSummary, EvalResult, EvaluationResult, TrainEvent } from './train/events.ts'
export { LowrankError, type ErrorCode } from './util/errors.ts'
