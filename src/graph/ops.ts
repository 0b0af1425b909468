import { elementwise } from './ops/elementwise.ts'
import { layout } from './ops/layout.ts'
import { loss } from './ops/loss.ts'
import { products } from './ops/products.ts'
import { storage } from './ops/storage.ts'
import type { OpDefinitions } from './ops/definition.ts'

export type { OpDefinition } from './ops/definition.ts'

/**
 * Every op, with its shape rule, gradient rule, ONNX form and memory, closed: an op without one of these is a compile error.
 * Reference for the emitted ops: onnx.ai/onnx/operators and ContribOperators.md of ONNX Runtime.
 */
export const ops: OpDefinitions = { ...elementwise, ...products, ...layout, ...loss, ...storage }
