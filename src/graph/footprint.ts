import { elementCount, type DimValues } from './dims.ts'
import type { Program } from './program.ts'
import type { DType, Node, OpName, Value } from './value.ts'

const elementBytes: Record<DType, number> = { f32: 4, i64: 8, u16: 2, i8: 1, u8: 1 }

/** Bytes of a value. */
export function valueBytes(value: Value, sizes: DimValues): number {
  return elementCount(value.type.shape, sizes) * elementBytes[value.type.dtype]
}

/** Results that are the memory of their operand under another shape. */
const views = new Set<OpName>(['reshape'])
/** Results that no memory is taken for: constants, and weights that the product after them reads packed. */
const free = new Set<OpName>(['constant', 'integers', 'fourBitWeight', 'input'])
/** Results that may take the place of an operand that is not read again. */
const inPlace = new Set<OpName>(['add', 'sub', 'mul', 'exp', 'sigmoid', 'softmax'])
/** Memory that an op takes besides its results while it runs, as a multiple of their bytes: copies between the ONNX ops it is made of. */
const scratch: Partial<Record<OpName, number>> = { decode: 0.5, putRows: 1, rmsNorm: 0, addAt: 0 }

/**
 * The most bytes that live at once between the inputs of a program and its outputs, outputs included, when its operations run in their
 * order and each result is freed after it was last read. Inputs belong to the caller and do not count.
 */
export function workingBytes(program: Program, sizes: DimValues): number {
  const given = new Set(program.inputs.map((port) => port.value))
  const owner = new Map<Value, Value>()
  const ownerOf = (value: Value): Value => owner.get(value) ?? value
  const lastRead = new Map<Value, number>()
  program.nodes.forEach((node, i) => {
    for (const output of node.outputs) {
      const [operand] = node.inputs
      if (views.has(node.op) && operand !== undefined) owner.set(output, ownerOf(operand))
    }
    for (const input of node.inputs) lastRead.set(ownerOf(input), i)
  })
  for (const { value } of program.outputs) lastRead.set(ownerOf(value), Infinity)

  let [live, most] = [0, 0]
  const bytes = new Map<Value, number>()
  const release = (value: Value): void => {
    live -= bytes.get(value) ?? 0
    bytes.delete(value)
  }
  program.nodes.forEach((node, i) => {
    if (!free.has(node.op) && !views.has(node.op)) {
      const dying = node.inputs.map(ownerOf).filter((value) => bytes.has(value) && lastRead.get(value) === i)
      const temporary = allocate(node, dying)
      most = Math.max(most, live + temporary)
    }
    for (const value of [...node.inputs.map(ownerOf), ...node.outputs]) {
      if ((lastRead.get(value) ?? -1) <= i && bytes.has(value)) release(value)
    }
  })
  return most

  /** A product with a packed weight unpacks it on the way. */
  function unpackedBytes(node: Node): number {
    const [, weight] = node.inputs
    if (node.op !== 'linear' || weight?.node.op !== 'fourBitWeight' || given.has(weight)) return 0
    return valueBytes(weight, sizes)
  }

  /** Takes memory for the results of a node; returns what it takes only while it runs. */
  function allocate(node: Node, dying: readonly Value[]): number {
    let temporary = 0
    for (const output of node.outputs) {
      if (given.has(output)) continue
      const size = valueBytes(output, sizes)
      temporary += size * (scratch[node.op] ?? 0) + unpackedBytes(node)
      const replaced = inPlace.has(node.op) ? dying.find((value) => bytes.get(value) === size) : undefined
      if (replaced !== undefined) release(replaced)
      bytes.set(output, size)
      live += size
    }
    return temporary
  }
}

/** Bytes of what a program returns. */
export function outputBytes(program: Program, sizes: DimValues): number {
  return program.outputs.reduce((total, { value }) => total + valueBytes(value, sizes), 0)
}
