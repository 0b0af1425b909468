import { internalError } from '../util/errors.ts'
import { showShape, type Shape } from './dims.ts'
import type { OpAttributes, OpName, TensorType } from './value.ts'

/** Attribute values of an ONNX node: a float must be told apart from an integer. */
export type OnnxAttribute = number | string | readonly number[] | { readonly float: number }

/** What an op writes its ONNX nodes with. `inputs` and `outputs` are the names of its own tensors. */
export interface Emitter {
  readonly inputs: readonly string[]
  readonly outputs: readonly string[]
  readonly inputTypes: readonly TensorType[]
  readonly outputTypes: readonly TensorType[]
  /** How an input comes about, for an op that takes up the one before it; undefined for an input of the program. */
  maker(input: number): Maker | undefined
  node(type: string, inputs: readonly string[], outputs: readonly string[], attributes?: Attributes): void
  /** A node of the `com.microsoft` domain. */
  contrib(type: string, inputs: readonly string[], outputs: readonly string[], attributes?: Attributes): void
  /** Names of constants and of intermediate tensors. */
  ints(values: readonly number[]): string
  float(value: number): string
  temporary(): string
}

/** An op with the names of its operands. */
export type Maker = {
  readonly [K in OpName]: { readonly op: K; readonly attributes: OpAttributes[K]; readonly inputs: readonly string[] }
}[OpName]

type Attributes = Readonly<Record<string, OnnxAttribute>>

/**
 * The shape operand of an ONNX Reshape of x: 0 copies the dimension at the same place, one -1 is worked out at run time, and a
 * dimension that x has at another place is read from its shape.
 */
export function emitShape(e: Emitter, x: string, from: Shape, to: Shape): string {
  const simple = to.map((dim, i) => (typeof dim === 'number' ? dim : dim === from[i] ? 0 : -1))
  const unknown = (target: readonly number[]): number => target.filter((dim) => dim === -1).length
  if (unknown(simple) <= 1) return e.ints(simple)
  const sources = to.map((dim, i) => (simple[i] === -1 ? from.indexOf(dim) : -1))
  if (unknown(simple.map((dim, i) => (sources[i] === -1 ? dim : 1))) > 1) {
    throw internalError(`reshape ${showShape(from)} to ${showShape(to)}: more than one dimension to work out`)
  }
  const shape = e.temporary()
  e.node('Shape', [x], [shape])
  const parts = simple.map((dim, i) => {
    const source = sources[i] ?? -1
    if (source === -1) return e.ints([dim])
    const part = e.temporary()
    e.node('Gather', [shape, e.ints([source])], [part])
    return part
  })
  const target = e.temporary()
  e.node('Concat', parts, [target], { axis: 0 })
  return target
}
