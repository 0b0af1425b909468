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
 * What memory the results of an op take, which plans are made of (`footprint.ts`):
 * - `own`: memory of their own.
 * - `scratch`: memory of their own and, while the op runs, this multiple of it: copies between the ONNX ops that it is made of.
 * - `view`: the memory of the first operand, under another shape.
 * - `free`: none.
 * - `packed`: none, but each op that reads them unpacks them while it runs.
 * - `sliced`: none, but each product with them cuts its other operand into integers, and adds up parts of its result, while it runs.
 */
export type OpMemory = 'own' | { readonly scratch: number } | 'view' | 'free' | 'packed' | 'sliced'

export interface OpDefinition<A> {
  /** Types of the outputs; throws when the inputs do not fit. */
  readonly infer: (inputs: readonly TensorType[], attributes: A) => readonly TensorType[]
  /** `discrete`: no gradient can exist, and asking for one is an error. Gradients may be of any shape that broadcasting made; `grad.ts` sums them. */
  readonly vjp: Vjp<A> | 'discrete'
  readonly emit: (e: Emitter, attributes: A) => void
  readonly memory: OpMemory
  /** Results, by their index, that a backward program is given where it may be, rather than compute them a second time. */
  readonly expensive?: readonly number[]
  /** Results that the program does not read are not made. */
  readonly sparing?: true
}

/** The table of all ops. */
export type OpDefinitions = { readonly [Name in OpName]: OpDefinition<OpAttributes[Name]> }

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

/** Writes a node, and gives its result a name. */
export function made(
  e: Emitter,
  type: string,
  inputs: readonly string[],
  attributes?: Parameters<Emitter['node']>[3],
): string {
  const result = e.temporary()
  e.node(type, inputs, [result], attributes)
  return result
}
