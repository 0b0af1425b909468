import { internalError } from '../../util/errors.ts'
import type { Builder } from '../builder.ts'
import type { Shape } from '../dims.ts'
import type { Emitter } from '../emitter.ts'
import { showType, type OpAttributes, type OpName, type TensorType, type Value } from '../value.ts'

export interface VjpContext<A> {
  readonly attributes: A
  readonly inputs: readonly Value[]
  readonly outputs: readonly Value[]
}

/** The reverse-mode rule: gradients of the inputs, given those of the outputs (undefined: not needed, or none). */
type Vjp<A> = (
  b: Builder,
  context: VjpContext<A>,
  grad: Value,
  ...moreGrads: readonly (Value | undefined)[]
) => readonly (Value | undefined)[]

/**
 * What memory the results of an op take, in a program that runs: `own`; `inPlace`, that of an operand which is not read again; `view`, that of
 * the operand under another shape; `free`, none. `scratch` is what it takes besides while it runs, as a multiple of its results: copies
 * between the ONNX ops that it is made of.
 */
export type OpMemory = 'own' | 'inPlace' | 'view' | 'free' | { readonly scratch: number }

export interface OpDefinition<A> {
  /** Types of the outputs; throws when the inputs do not fit. */
  readonly infer: (inputs: readonly TensorType[], attributes: A) => readonly TensorType[]
  /** `discrete`: no gradient can exist, and asking for one is an error. Gradients may be of any shape that broadcasting made; `grad.ts` sums them. */
  readonly vjp: Vjp<A> | 'discrete'
  readonly emit: (e: Emitter, attributes: A) => void
  readonly memory: OpMemory
  /** Never computed a second time in a backward program that may keep its result instead. */
  readonly expensive?: true
}

/** A part of the table of all ops. */
export type OpDefinitions<K extends OpName> = { readonly [Name in K]: OpDefinition<OpAttributes[Name]> }

export const f32 = (shape: Shape): TensorType => ({ dtype: 'f32', shape })

export function need(condition: boolean, op: OpName, inputs: readonly TensorType[]): void {
  if (!condition) throw internalError(`${op} of ${inputs.map(showType).join(', ')}`)
}

export function pair<T>(items: readonly T[]): readonly [T, T] {
  const [a, b] = items
  if (a === undefined || b === undefined) throw internalError('an op without its two operands')
  return [a, b]
}

export function single<T>(items: readonly T[]): T {
  const [item] = items
  if (item === undefined) throw internalError('an op without its operand')
  return item
}

export const sameAsFirst: OpDefinition<unknown>['infer'] = (inputs) => [single(inputs)]

/** An op that is one ONNX op without attributes. */
export const plain =
  (type: string): ((e: Emitter) => void) =>
  (e) =>
    e.node(type, e.inputs, e.outputs)
