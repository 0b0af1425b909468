/*
 * The entry point `lowrank/graph`: tensor programs with derived gradients, as ONNX. Needs no runtime, and runs anywhere.
 */
export { b } from './build.ts'
export type { Builder } from './builder.ts'
export type { Dim, DimValues, Shape } from './dims.ts'
export { gradients } from './grad.ts'
export { toOnnx } from './onnx/emit.ts'
export { print, program, type Port, type Program } from './program.ts'
export type { DType, Node, TensorType, Value } from './value.ts'
