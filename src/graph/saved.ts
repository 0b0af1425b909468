import { elementCount, symbolsOf, type DimValues } from './dims.ts'
import { ops } from './ops/index.ts'
import { topological, type Node, type Value } from './value.ts'

/**
 * Which values of a forward program its backward program should be given, so that no expensive operation runs twice and the
 * fewest bytes are kept: the minimum cut between the results of expensive operations and the values that gradients read, where
 * keeping a value costs its size and recomputing a cheap one is free; of several such cuts the last, behind which least is recomputed.
 * The idea is that of PyTorch's min-cut partitioner (functorch, "min-cut rematerialization").
 *
 * `given` are inputs of both programs; `sizes` are the dimensions to weigh with.
 */
export function chooseSaved(options: {
  readonly forward: readonly Value[]
  readonly gradients: readonly Value[]
  readonly given: readonly Value[]
  readonly sizes: DimValues
}): Value[] {
  const given = new Set(options.given)
  const forward = topological(options.forward, given)
  const backward = topological(options.gradients, given)
  const early = [...forward, ...factors(backward, new Set([...given, ...forward.flatMap((node) => node.outputs)]))]
  const values = early.flatMap((node) => node.outputs)
  const indexOf = new Map(values.map((value, i) => [value, i]))
  // A place for a result is made before its program runs, so its size must follow from what that is given.
  const known = new Set(options.given.flatMap(({ type }) => type.shape.flatMap(symbolsOf)))
  const isKnown = ({ type }: Value): boolean => type.shape.flatMap(symbolsOf).every((symbol) => known.has(symbol))
  // Each value is two vertices with an edge of its size between them; cutting that edge is keeping the value.
  const source = 2 * values.length
  const sink = source + 1
  const flow = new FlowNetwork(sink + 1)
  values.forEach((value, i) => {
    flow.connect(2 * i, 2 * i + 1, isKnown(value) ? elementCount(value.type.shape, options.sizes) : Infinity)
    if (ops[value.node.op].expensive?.includes(value.index)) flow.connect(source, 2 * i, Infinity)
    else {
      for (const input of value.node.inputs) {
        const from = indexOf.get(input)
        if (from !== undefined) flow.connect(2 * from + 1, 2 * i, Infinity)
      }
    }
  })
  const earlyNodes = new Set(early)
  const read = backward.filter((node) => !earlyNodes.has(node)).flatMap((node) => node.inputs)
  for (const value of new Set([...read, ...options.gradients])) {
    const i = indexOf.get(value)
    if (i !== undefined) flow.connect(2 * i + 1, sink, Infinity)
  }
  const behind = flow.minimumCut(source, sink)
  const cut = values.filter((_, i) => !behind.has(2 * i) && behind.has(2 * i + 1))
  return [...new Set(cut.map((value) => viewed(value, indexOf)))]
}

/** What a value is another shape of: handing that over instead takes no copy. */
function viewed(value: Value, early: ReadonlyMap<Value, number>): Value {
  const [operand] = value.node.inputs
  const isView = ops[value.node.op].memory === 'view' && operand !== undefined && early.has(operand)
  return isView ? viewed(operand, early) : value
}

/** Of the nodes that gradients take, those that depend on no gradient: a forward program can run them as well. */
function factors(backward: readonly Node[], known: Set<Value>): Node[] {
  return backward.filter((node) => {
    if (node.op === 'input' || node.outputs.some((output) => known.has(output))) return false
    if (!node.inputs.every((input) => known.has(input))) return false
    for (const output of node.outputs) known.add(output)
    return true
  })
}

/** Maximum flow by shortest augmenting paths (Edmonds and Karp 1972); programs have some hundred vertices. */
class FlowNetwork {
  readonly #edges: { readonly to: number; capacity: number; readonly reverse: number }[] = []
  readonly #outgoing: number[][]

  constructor(vertices: number) {
    this.#outgoing = Array.from({ length: vertices }, () => [])
  }

  connect(from: number, to: number, capacity: number): void {
    const edge = this.#edges.length
    this.#edges.push({ to, capacity, reverse: edge + 1 }, { to: from, capacity: 0, reverse: edge })
    this.#outgoing[from]?.push(edge)
    this.#outgoing[to]?.push(edge + 1)
  }

  /** The vertices on the sink's side of a minimum cut, of the one with the fewest of them. */
  minimumCut(source: number, sink: number): ReadonlySet<number> {
    for (;;) {
      const via = this.#search(source)
      if (!via.has(sink)) return this.#leadingTo(sink)
      const path: number[] = []
      for (let vertex = sink; vertex !== source;) {
        const edge = via.get(vertex) ?? 0
        path.push(edge)
        vertex = this.#edges[this.#edges[edge]?.reverse ?? 0]?.to ?? source
      }
      const amount = Math.min(...path.map((edge) => this.#edges[edge]?.capacity ?? 0))
      for (const index of path) {
        const edge = this.#edges[index]
        const back = this.#edges[edge?.reverse ?? 0]
        if (edge === undefined || back === undefined) continue
        edge.capacity -= amount
        back.capacity += amount
      }
    }
  }

  /** The vertices from which the sink can still be reached, the sink included. */
  #leadingTo(sink: number): Set<number> {
    const found = new Set([sink])
    for (const vertex of found) {
      for (const index of this.#outgoing[vertex] ?? []) {
        const { to = sink, reverse = index } = this.#edges[index] ?? {}
        if ((this.#edges[reverse]?.capacity ?? 0) > 0) found.add(to)
      }
    }
    return found
  }

  /** For each vertex that can still be reached, the edge by which it is. */
  #search(source: number): Map<number, number> {
    const via = new Map<number, number>()
    const queue = [source]
    for (const vertex of queue) {
      for (const index of this.#outgoing[vertex] ?? []) {
        const edge = this.#edges[index]
        if (edge === undefined || edge.capacity <= 0 || edge.to === source || via.has(edge.to)) continue
        via.set(edge.to, index)
        queue.push(edge.to)
      }
    }
    return via
  }
}
