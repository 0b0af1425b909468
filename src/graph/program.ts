import { internalError } from '../util/errors.ts'
import { sameShape } from './dims.ts'
import { ops, type OpDefinition } from './ops/index.ts'
import {
  showType,
  topological,
  type Node,
  type OpAttributes,
  type OpName,
  type TensorType,
  type Value,
} from './value.ts'

/** A tensor that crosses the border of a program. */
export interface Port {
  readonly name: string
  readonly value: Value
}

/**
 * A piece of the computation that is run as one: named inputs, named outputs and what lies between. Any value may serve as
 * an input, so the same expression is cut into programs at different places (see `saved.ts`).
 */
export interface Program {
  readonly name: string
  readonly inputs: readonly Port[]
  readonly outputs: readonly Port[]
  /** Operations in the order in which they run. */
  readonly nodes: readonly Node[]
}

/** Cuts a verified program out of an expression. Candidates for inputs that nothing depends on are left out. */
export function program(options: {
  readonly name: string
  readonly inputs: readonly Port[]
  readonly outputs: readonly Port[]
}): Program {
  const { name, outputs } = options
  const given = new Set(options.inputs.map((port) => port.value))
  const nodes = topological(
    outputs.map((port) => port.value),
    given,
  )
  const used = new Set([...nodes.flatMap((node) => node.inputs), ...outputs.map((port) => port.value)])
  const inputs = options.inputs.filter((port) => used.has(port.value))
  const result = { name, inputs, outputs, nodes }
  verify(result)
  return result
}

/** Throws when a program breaks a rule of the graph: an unnamed input, a name given twice, a type that its op denies. */
export function verify({ name, inputs, outputs, nodes }: Program): void {
  const fail = (what: string): never => {
    throw internalError(`program ${name}: ${what}`)
  }
  const portNames = [...inputs, ...outputs].map((port) => port.name)
  if (new Set(portNames).size !== portNames.length) fail(`a name given twice among ${portNames.join(', ')}`)
  const given = new Set(inputs.map((port) => port.value))
  const defined = new Set(given)
  for (const node of nodes) {
    if (node.op === 'input') fail(`the input "${(node as Node<'input'>).attributes.name}" is not among its inputs`)
    for (const input of node.inputs) if (!defined.has(input)) fail(`${node.op} reads a value before it is made`)
    const { infer } = ops[node.op] as OpDefinition<OpAttributes[OpName]>
    const types = infer(
      node.inputs.map((input) => input.type),
      node.attributes,
    )
    node.outputs.forEach((output, i) => {
      const type = types[i]
      if (type === undefined || !sameType(type, output.type))
        fail(`${node.op} is said to give ${showType(output.type)}`)
      if (defined.has(output) && !given.has(output)) fail(`${node.op} is assigned twice`)
      defined.add(output)
    })
  }
  for (const port of outputs) if (!defined.has(port.value)) fail(`the output "${port.name}" is never made`)
}

function sameType(a: TensorType, b: TensorType): boolean {
  return a.dtype === b.dtype && sameShape(a.shape, b.shape)
}

/** The program as stable text, one operation a line: equal text means the same computation. */
export function print(target: Program): string {
  const names = new Map<Value, string>()
  for (const { name, value } of target.inputs) names.set(value, name)
  const lines = [`program ${target.name}`]
  for (const { name, value } of target.inputs) lines.push(`  in  ${name}: ${showType(value.type)}`)
  for (const node of target.nodes) {
    for (const output of node.outputs) {
      if (!names.has(output)) names.set(output, `%${names.size - target.inputs.length}`)
    }
    const results = node.outputs.map((output) => `${names.get(output)}: ${showType(output.type)}`)
    const attributes = Object.entries(node.attributes).map(([key, value]) => ` ${key}=${JSON.stringify(value)}`)
    const operands = node.inputs.map((input) => names.get(input)).join(', ')
    lines.push(`  ${results.join(', ')} = ${node.op}(${operands})${attributes.join('')}`)
  }
  for (const { name, value } of target.outputs) lines.push(`  out ${name} = ${names.get(value)}`)
  return `${lines.join('\n')}\n`
}
