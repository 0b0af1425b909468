import { internalError } from '../util/errors.ts'
import { b } from './build.ts'
import { ops, type OpDefinition } from './ops/index.ts'
import { topological, type Node, type OpAttributes, type OpName, type Value } from './value.ts'

/**
 * Reverse-mode differentiation: the gradient of sum(output * cotangent) with respect to each of `wrt`, as symbolic
 * tensors in terms of the same ops. A cotangent is of its output's shape, or a constant that stands for one. A value that
 * the outputs do not depend on has the gradient undefined.
 */
export function gradients(
  outputs: readonly { readonly value: Value; readonly cotangent: Value }[],
  wrt: readonly Value[],
): (Value | undefined)[] {
  const order = topological(
    outputs.map((output) => output.value),
    new Set(),
  )
  const wanted = dependents(order, wrt)
  const cotangents = new Map<Value, Value>()
  const accumulate = (value: Value, grad: Value): void => {
    if (!wanted.has(value)) return
    const sum = b.sumTo(grad, value.type.shape)
    const before = cotangents.get(value)
    cotangents.set(value, before === undefined ? sum : b.add(before, sum))
  }
  for (const { value, cotangent } of outputs) accumulate(value, cotangent)
  for (const node of order.toReversed()) {
    const grads = node.outputs.map((output) => cotangents.get(output))
    if (node.inputs.length === 0 || grads.every((grad) => grad === undefined)) continue
    vjp(node, grads).forEach((grad, i) => {
      const input = node.inputs[i]
      if (grad !== undefined && input !== undefined) accumulate(input, grad)
    })
  }
  return wrt.map((value) => cotangents.get(value))
}

/** The values that depend on one of `roots`, the roots included. */
function dependents(order: readonly Node[], roots: readonly Value[]): ReadonlySet<Value> {
  const found = new Set(roots)
  for (const node of order) {
    if (node.inputs.some((input) => found.has(input))) for (const output of node.outputs) found.add(output)
  }
  return found
}

function vjp(node: Node, grads: readonly (Value | undefined)[]): readonly (Value | undefined)[] {
  const { vjp: rule } = ops[node.op] as OpDefinition<OpAttributes[OpName]>
  const [first, ...rest] = grads
  if (rule === 'discrete' || first === undefined) throw internalError(`no gradient exists through ${node.op}`)
  return rule(b, node, first, ...rest)
}
