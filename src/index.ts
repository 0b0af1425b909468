export * from './commands/index.ts'
export type { CallOptions, StatusOptions } from './commands/compute.ts'
export { loadModel, Model, type GenerateOptions, type LoadModelOptions } from './commands/model.ts'
export { LowrankError, type ErrorCode } from './util/errors.ts'
