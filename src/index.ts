export * from './commands/index.ts'
export type { CallOptions, StatusOptions } from './commands/compute.ts'
export {
  loadModel,
  Model,
  type GenerateOptions,
  type LoadModelOptions,
  type ModelInfo,
  type Prompt,
} from './commands/model.ts'
export { LowrankError, type ErrorCode } from './util/errors.ts'
