import { elementCount, type DimValues } from './dims.ts'
import type { Program } from './program.ts'
import { ops } from './ops/index.ts'
import type { OpMemory } from './ops/definition.ts'
import type { DType, Node, Value } from './value.ts'

const elementBytes: Record<DType, number> = { f32: 4, i64: 8, u16: 2, i8: 1, u8: 1 }

/** Bytes of a value. */
export function valueBytes(value: Value, sizes: DimValues): number {
  return elementCount(value.type.shape, sizes) * elementBytes[value.type.dtype]
}

/** Where memory of a program comes from. */
interface Allocator {
  take(bytes: number): number
  give(taken: number): void
}

/**
 * The nodes in the order in which ONNX Runtime runs them: depth first from those that nobody reads, the last of these first, and of what a node
 * reads the last first (`Graph::ReverseDFSFrom` in `core/graph/graph.cc`).
 */
function asTheyRun(nodes: readonly Node[]): readonly Node[] {
  const places = new Map(nodes.map((node, i) => [node, i]))
  const before = nodes.map(({ inputs }) =>
    [...new Set(inputs.map(({ node }) => places.get(node)))].filter((i) => i !== undefined).toSorted((a, b) => a - b),
  )
  const read = new Set(before.flat())
  const stack = [...places.values()].filter((i) => !read.has(i)).map((i) => ({ i, done: false }))
  const visited = new Set<number>()
  const order: Node[] = []
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    const { i, done } = next
    if (done) order.push(nodes[i]!)
    if (done || visited.has(i)) continue
    visited.add(i)
    stack.push(
      { i, done: true },
      ...before[i]!.filter((one) => !visited.has(one)).map((one) => ({ i: one, done: false })),
    )
  }
  return order
}

/**
 * Takes and gives memory as a program does between its inputs and its outputs, when each result is freed after it was last read. No result takes
 * the place of an operand: the runtime knows too few shapes to see that one fits. Inputs belong to the caller; so does the memory of f32
 * results, which it hands in.
 */
function walk(program: Program, sizes: DimValues, memory: Allocator): void {
  const nodes = asTheyRun(program.nodes)
  const given = new Set(program.inputs.map((port) => port.value))
  const placed = new Set(program.outputs.map(({ value }) => value).filter(({ type }) => type.dtype === 'f32'))
  const owner = new Map<Value, Value>()
  const ownerOf = (value: Value): Value => owner.get(value) ?? value
  const lastRead = new Map<Value, number>()
  nodes.forEach((node, i) => {
    for (const output of node.outputs) {
      const [operand] = node.inputs
      if (ops[node.op].memory === 'view' && operand !== undefined) owner.set(output, ownerOf(operand))
    }
    for (const input of node.inputs) lastRead.set(ownerOf(input), i)
  })
  for (const { value } of program.outputs) lastRead.set(ownerOf(value), Infinity)

  const taken = new Map<Value, { readonly place: number; readonly bytes: number }>()
  nodes.forEach((node, i) => {
    const { memory: kind } = ops[node.op]
    if (kind !== 'free' && kind !== 'packed' && kind !== 'sliced' && kind !== 'view') allocate(node, kind)
    for (const value of [...node.inputs.map(ownerOf), ...node.outputs]) {
      const held = taken.get(value)
      if ((lastRead.get(value) ?? -1) > i || held === undefined) continue
      memory.give(held.place)
      taken.delete(value)
    }
  })

  /** Takes memory for the results of a node, and for what it needs only while it runs. */
  function allocate(node: Node, kind: OpMemory): void {
    for (const output of node.outputs) {
      if (given.has(output) || (ops[node.op].sparing && !lastRead.has(output))) continue
      const bytes = valueBytes(output, sizes)
      const scratch = typeof kind === 'object' ? kind.scratch * bytes : 0
      const temporary = [scratch, unpackedBytes(node), ...slicedBytes(node, bytes)].filter((size) => size > 0)
      if (placed.has(output)) {
        for (const place of temporary.map((size) => memory.take(size))) memory.give(place)
        continue
      }
      taken.set(output, { place: memory.take(bytes), bytes })
      for (const place of temporary.map((size) => memory.take(size))) memory.give(place)
    }
  }

  /** Of packed operands, which the op unpacks on the way. */
  function unpackedBytes(node: Node): number {
    const packed = node.inputs.filter((input) => ops[input.node.op].memory === 'packed' && !given.has(input))
    return packed.reduce((total, input) => total + valueBytes(input, sizes), 0)
  }

  /** Of a product with a weight in slices: what its other operand is cut by (its f32 form scaled, two bytes an element), a second result. */
  function slicedBytes({ inputs }: Node, resultBytes: number): readonly number[] {
    const [x, weight] = inputs
    if (x === undefined || weight === undefined || ops[weight.node.op].memory !== 'sliced') return []
    return [1.5 * valueBytes(x, sizes), resultBytes]
  }
}

/** Larger pieces are given back to the system by the C library as soon as they are free; from this size on always (`mallopt(3)`). */
const mappedBytes = 2 ** 25

/** The most bytes that a program takes at once: in pieces that the C library keeps when they are free, and in larger ones. */
export function heapBytes(program: Program, sizes: DimValues): { readonly kept: number; readonly mapped: number } {
  const pieces: number[] = []
  const most = { kept: 0, mapped: 0 }
  const live = { kept: 0, mapped: 0 }
  const kind = (bytes: number): 'kept' | 'mapped' => (bytes < mappedBytes ? 'kept' : 'mapped')
  walk(program, sizes, {
    take: (bytes) => {
      const of = kind(bytes)
      live[of] += bytes
      most[of] = Math.max(most[of], live[of])
      return pieces.push(bytes) - 1
    },
    give: (taken) => {
      const bytes = pieces[taken]!
      live[kind(bytes)] -= bytes
    },
  })
  return most
}

/**
 * The bytes that an arena of ONNX Runtime has used once a program ran in it, at each of these sizes in turn: it keeps them for the next run,
 * whose tensors may not fit into what those of another size have left.
 */
export function arenaBytes(program: Program, ...runs: readonly DimValues[]): number {
  const arena = new Arena()
  for (const sizes of runs) walk(program, sizes, arena)
  return arena.touched
}

interface Piece {
  readonly region: number
  start: number
  size: number
  used: boolean
}

/**
 * ONNX Runtime's arena, as far as it decides how much is used (`core/framework/bfc_arena.cc`): the smallest free piece that is large enough,
 * else a new region, each twice as large as the one before. A piece is cut where it is twice as large as asked for, or by 128 MB.
 */
class Arena implements Allocator {
  readonly #pieces = new Set<Piece>()
  readonly #taken: Piece[] = []
  readonly #touched: number[] = []
  #next = 2 ** 20

  /** Memory that was never used is not there. */
  get touched(): number {
    return this.#touched.reduce((total, bytes) => total + bytes, 0)
  }

  take(bytes: number): number {
    const size = Math.max(256, Math.ceil(bytes / 256) * 256)
    let best: Piece | undefined
    for (const piece of this.#pieces) {
      if (!piece.used && piece.size >= size && piece.size < (best?.size ?? Infinity)) best = piece
    }
    const piece = best ?? this.#extend(size)
    if (piece.size >= 2 * size || piece.size - size >= 2 ** 27) {
      this.#pieces.add({ ...piece, start: piece.start + size, size: piece.size - size })
      piece.size = size
    }
    piece.used = true
    this.#touched[piece.region] = Math.max(this.#touched[piece.region]!, piece.start + size)
    return this.#taken.push(piece) - 1
  }

  give(taken: number): void {
    const piece = this.#taken[taken]!
    piece.used = false
    for (const other of this.#pieces) {
      const after = other.start === piece.start + piece.size
      const before = piece.start === other.start + other.size
      if (other.used || other.region !== piece.region || !(after || before)) continue
      piece.start = Math.min(piece.start, other.start)
      piece.size += other.size
      this.#pieces.delete(other)
    }
  }

  #extend(size: number): Piece {
    const enough = this.#next >= size
    while (this.#next < size) this.#next *= 2
    const piece = { region: this.#touched.push(0) - 1, start: 0, size: this.#next, used: false }
    if (enough) this.#next *= 2
    this.#pieces.add(piece)
    return piece
  }
}

/** Bytes of what a program returns. */
export function outputBytes(program: Program, sizes: DimValues): number {
  return program.outputs.reduce((total, { value }) => total + valueBytes(value, sizes), 0)
}
