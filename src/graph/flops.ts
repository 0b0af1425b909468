import { dimValue, elementCount, type DimValues } from './dims.ts'
import type { Program } from './program.ts'
import type { Node } from './value.ts'

/** Floating point operations of the matrix products of a program, two for each multiplication and addition. */
export function productFlops(program: Program, sizes: DimValues): number {
  return program.nodes.reduce((total, node) => total + flopsOf(node, sizes), 0)
}

function flopsOf(node: Node, sizes: DimValues): number {
  const [x] = node.inputs
  const [y] = node.outputs
  if ((node.op !== 'linear' && node.op !== 'matmul') || x === undefined || y === undefined) return 0
  const { shape } = x.type
  // What is summed over is the last axis, of a transposed operand the one before.
  const transposed = node.op === 'matmul' && (node as Node<'matmul'>).attributes.transA
  const depth = dimValue(shape.at(transposed ? -2 : -1) ?? 1, sizes)
  return 2 * elementCount(y.type.shape, sizes) * depth
}
