import { internalError } from '../../util/errors.ts'

/** What is remembered of a layer, [rows, kv heads, capacity, d] each. */
interface LayerMemory {
  keys: Float32Array
  values: Float32Array
}

export interface CacheShape {
  readonly layers: number
  readonly kvHeads: number
  readonly headDim: number
}

/**
 * Keys and values of the positions that were computed, row by row. It lies in memory of JavaScript, which programs read where it is and
 * return only new rows for: what ONNX Runtime returns is copied, and a cache that goes through a program and back is copied whole.
 */
export class KeyValueCache {
  readonly shape: CacheShape
  readonly #layers: LayerMemory[]
  /** Positions that each row has. */
  readonly #lengths: number[] = []
  #capacity = 0

  constructor(shape: CacheShape, rows = 1) {
    this.shape = shape
    this.#layers = Array.from({ length: shape.layers }, () => ({
      keys: new Float32Array(),
      values: new Float32Array(),
    }))
    for (let row = 0; row < rows; row++) this.#lengths.push(0)
  }

  get rows(): number {
    return this.#lengths.length
  }

  get capacity(): number {
    return this.#capacity
  }

  /** Bytes that it takes. */
  get bytes(): number {
    return this.#layers.reduce((total, { keys, values }) => total + keys.byteLength + values.byteLength, 0)
  }

  lengthOf(row: number): number {
    return this.#lengths[row] ?? 0
  }

  layer(index: number): Readonly<LayerMemory> {
    const layer = this.#layers[index]
    if (layer === undefined) throw internalError(`a cache without layer ${index}`)
    return layer
  }

  /** Makes room for `positions` in each row. Grows by an eighth at least, so that few tokens pay for moving what is there. */
  reserve(positions: number): void {
    if (positions <= this.#capacity) return
    this.#resize(this.rows, roundUp(Math.max(positions, this.#capacity * 1.125), 16))
  }

  /** Takes over what a program made of `seq` new positions, [rows, kv heads, seq, d] each; `advance` counts them once all layers have theirs. */
  append(layer: number, keys: Float32Array, values: Float32Array, seq: number): void {
    const { kvHeads, headDim } = this.shape
    const memory = this.layer(layer)
    for (let row = 0; row < this.rows; row++) {
      for (let head = 0; head < kvHeads; head++) {
        const from = (row * kvHeads + head) * seq * headDim
        const to = ((row * kvHeads + head) * this.#capacity + this.lengthOf(row)) * headDim
        memory.keys.set(keys.subarray(from, from + seq * headDim), to)
        memory.values.set(values.subarray(from, from + seq * headDim), to)
      }
    }
  }

  advance(seq: number): void {
    for (let row = 0; row < this.rows; row++) this.#lengths[row] = this.lengthOf(row) + seq
  }

  /** Forgets all positions of a row from `length` on. */
  truncate(row: number, length: number): void {
    this.#lengths[row] = Math.min(this.lengthOf(row), length)
  }

  /** Takes the rows of another cache behind its own. */
  join(other: KeyValueCache): void {
    const before = this.rows
    const longest = Math.max(...other.#lengths)
    this.#resize(before + other.rows, Math.max(this.#capacity, roundUp(longest, 16)))
    this.#lengths.push(...other.#lengths)
    for (let row = 0; row < other.rows; row++) this.#copyRow(other, row, before + row)
  }

  /** Removes a row; the last one takes its place. */
  remove(row: number): void {
    const last = this.rows - 1
    if (row !== last) {
      this.#lengths[row] = this.lengthOf(last)
      this.#copyRow(this, last, row)
    }
    this.#lengths.pop()
    this.#resize(last, this.#capacity)
  }

  /** One row as a cache of its own, whose rows are so many copies of it, or of its first `length` positions. */
  row(row: number, copies = 1, length = this.lengthOf(row)): KeyValueCache {
    const copy = new KeyValueCache(this.shape, copies)
    copy.#lengths.fill(length)
    copy.#resize(copies, roundUp(length, 16))
    for (let i = 0; i < copies; i++) copy.#copyRow(this, row, i)
    return copy
  }

  /** As many positions as the row has here. */
  #copyRow(from: KeyValueCache, row: number, to: number): void {
    const { kvHeads, headDim } = this.shape
    const count = this.lengthOf(to) * headDim
    this.#layers.forEach((memory, i) => {
      const source = from.layer(i)
      for (let head = 0; head < kvHeads; head++) {
        const start = (row * kvHeads + head) * from.#capacity * headDim
        const place = (to * kvHeads + head) * this.#capacity * headDim
        memory.keys.set(source.keys.subarray(start, start + count), place)
        memory.values.set(source.values.subarray(start, start + count), place)
      }
    })
  }

  #resize(rows: number, capacity: number): void {
    const { kvHeads, headDim } = this.shape
    const [before, size] = [this.#capacity * headDim, capacity * headDim]
    const kept = Math.min(rows, this.rows) * kvHeads
    const moved = (old: Float32Array): Float32Array => {
      // Rows that go leave the others where they are.
      if (before === size && rows * kvHeads * size <= old.length) return old.subarray(0, rows * kvHeads * size)
      const made = new Float32Array(rows * kvHeads * size)
      for (let i = 0; i < kept; i++) made.set(old.subarray(i * before, (i + 1) * before), i * size)
      return made
    }
    for (const memory of this.#layers) {
      memory.keys = moved(memory.keys)
      memory.values = moved(memory.values)
    }
    this.#capacity = capacity
  }
}

function roundUp(value: number, to: number): number {
  return Math.ceil(value / to) * to
}
