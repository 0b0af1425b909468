import { elementwise } from './elementwise.ts'
import { gated } from './gated.ts'
import { layout } from './layout.ts'
import { loss } from './loss.ts'
import { products } from './products.ts'
import { storage } from './storage.ts'
import type { OpDefinitions } from './definition.ts'

export type { OpDefinition } from './definition.ts'

/**
 * Every op, with its shape rule, gradient rule, ONNX form and memory, closed: an op without one of these is a compile error.
 * Reference for the emitted ops: onnx.ai/onnx/operators and ContribOperators.md of ONNX Runtime.
 */
export const ops: OpDefinitions = { ...elementwise, ...gated, ...products, ...layout, ...loss, ...storage }
