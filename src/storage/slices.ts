import { internalError } from '../util/errors.ts'

/**
 * A weight w [rows, columns] as sums of integers of 8 bits, by which products are put together from exact products of integers:
 * w = scale (high + low / 254), with a scale for each row. Each step of `low` is 1 / 64,516 of twice the largest magnitude of its row.
 * The scheme is Ozaki's (Ootomo, Ozaki and Yokota 2024, arXiv 2306.11975).
 */
export interface Slices {
  /** `high` [columns, rows] and, where there is one, `low` [columns, rows]: as a product with x reads them. */
  readonly forward: Int8Array
  /** The same [rows, columns], as a product with a gradient reads them; undefined where that has to transpose. */
  readonly backward: Int8Array | undefined
  /** [rows] */
  readonly scales: Float32Array
}

/** Largest magnitude of an integer: that of -128 has no counterpart. */
const most = 127
/** Steps of `low` in one of `high`: `low` is at most a half of that. */
const steps = 2 * most

/** How a weight is cut: without `low` where it consists of integers of 8 bits, and for how many orders of its elements there is memory. */
export interface SliceForm {
  readonly low: boolean
  readonly orders: 1 | 2
}

/** Cuts a weight into `high` and `low`. */
export function sliceFloats(
  weight: Float32Array,
  [rows = 0, columns = 0]: readonly number[],
  orders: SliceForm['orders'],
): Slices {
  const count = rows * columns
  const scales = new Float32Array(rows)
  const byRows = new Int8Array(2 * count)
  for (let row = 0; row < rows; row++) {
    const start = row * columns
    let largest = 0
    for (let i = start; i < start + columns; i++) largest = Math.max(largest, Math.abs(weight[i]!))
    const scale = Math.fround(largest / most)
    if (!Number.isFinite(scale)) throw internalError('a weight that is not finite is cut into integers')
    scales[row] = scale
    // A row of numbers too small for a scale counts as one of zeros.
    if (scale === 0) continue
    for (let i = start; i < start + columns; i++) {
      const scaled = weight[i]! / scale
      const high = Math.max(-most, Math.min(most, Math.round(scaled)))
      byRows[i] = high
      byRows[count + i] = Math.max(-most, Math.min(most, Math.round((scaled - high) * steps)))
    }
  }
  return inOrders(byRows, { rows, columns, orders }, scales)
}

/** A weight that is integers `data` [rows, columns] times `scales` [rows] already. */
export function sliceIntegers(
  data: Int8Array,
  scales: Float32Array,
  [rows = 0, columns = 0]: readonly number[],
  orders: SliceForm['orders'],
): Slices {
  return inOrders(data, { rows, columns, orders }, scales)
}

function inOrders(
  byRows: Int8Array,
  { rows, columns, orders }: { readonly rows: number; readonly columns: number; readonly orders: SliceForm['orders'] },
  scales: Float32Array,
): Slices {
  const forward = new Int8Array(byRows.length)
  const count = rows * columns
  for (let start = 0; start < byRows.length; start += count) {
    transpose(byRows.subarray(start, start + count), rows, columns, forward.subarray(start, start + count))
  }
  return { forward, backward: orders === 2 ? byRows : undefined, scales }
}

/** Elements of a square that is transposed at once: it fits the nearest cache. */
const square = 64

function transpose(from: Int8Array, rows: number, columns: number, to: Int8Array): void {
  for (let top = 0; top < rows; top += square) {
    const bottom = Math.min(rows, top + square)
    for (let left = 0; left < columns; left += square) {
      const right = Math.min(columns, left + square)
      for (let row = top; row < bottom; row++) {
        for (let column = left; column < right; column++) to[column * rows + row] = from[row * columns + column]!
      }
    }
  }
}

/** Rows from `start` up to `end` of the weight that slices stand for, as f32. */
export function joinSlices(
  { forward, scales }: Slices,
  [rows = 0, columns = 0]: readonly number[],
  { start, end }: { readonly start: number; readonly end: number } = { start: 0, end: rows },
): Float32Array {
  const out = new Float32Array((end - start) * columns)
  const low = forward.length > rows * columns ? rows * columns : undefined
  for (let column = 0; column < columns; column++) {
    for (let row = start; row < end; row++) {
      const at = column * rows + row
      const sum = forward[at]! + (low === undefined ? 0 : forward[low + at]! / steps)
      out[(row - start) * columns + column] = sum * scales[row]!
    }
  }
  return out
}
